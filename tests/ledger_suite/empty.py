"""An empty ledger on SQLite as a copy: migrating a new one takes as long as twenty appends."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from patching.ledger.store import open_ledger


def place_empty_ledger(path: Path) -> str:
    """Copy the tables of an empty ledger to ``path`` unless a ledger is or was there; gives the URL to open.

    All copies in one process have the same id: a test of two ledgers that must not be mixed up makes its second anew.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() and not Path(f"{path}.id").exists():
        for part in ("", ".id"):
            shutil.copy(f"{_template()}{part}", f"{path}{part}")
    return f"sqlite:///{path}"


@cache
def _template() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="patching-empty-ledger-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    open_ledger(f"sqlite:///{folder}/ledger.db").close()
    return folder / "ledger.db"
