"""What the plugin gives to Airflow for the pages: a mounted application and two views, without importing FastAPI."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]


async def _application(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Serve the pages; imported at the first request, because workers import the plugin too and never need it."""
    from patching_airflow.ui.app import shared_app

    await shared_app()(scope, receive, send)


FASTAPI_APPS = [{"app": _application, "url_prefix": "/patching", "name": "patching"}]

EXTERNAL_VIEWS = [
    {
        "name": "Patching",
        "href": "/patching/page/run/{DAG_ID}/{RUN_ID}",
        "destination": "dag_run",
        "url_route": "patching",
    },
    {
        "name": "Patching",
        "href": "/patching/page/overview",
        "destination": "nav",
        "url_route": "patching_overview",
    },
]
