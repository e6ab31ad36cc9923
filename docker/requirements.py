"""Print what the image installs: the project's dependencies with its extras for PostgreSQL and Celery."""

import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
print("\n".join([*project["dependencies"], *extras["postgres"], *extras["celery"]]))  # noqa: T201
