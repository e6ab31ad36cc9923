"""The page served over HTTP from a real ledger, with guards that a test names; in a thread, on a free loopback port."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse

from patching.ledger.base import Ledger
from patching_airflow.ui.app import create_app
from patching_airflow.ui.security import Access, Guard


def guard_for(allowed: Callable[[str, str | None, Access], bool]) -> Guard:
    """Make a guard of named users: who they are stands in the header or cookie ``user``."""

    def authenticate(request: Request) -> str:
        user = request.headers.get("x-user") or request.cookies.get("user")
        if not user:
            raise HTTPException(401, "Not authenticated")
        return user

    def authorise(_request: Request, user: Any, dag_id: str | None, access: Access) -> None:
        if not allowed(str(user), dag_id, access):
            raise HTTPException(403, "Forbidden")

    return Guard(authenticate=authenticate, authorise=authorise, name=str)


def mounted(ledger: Ledger, guard: Guard, prefix: str = "/patching") -> FastAPI:
    """Mount the application under a prefix, as Airflow's API server does; ``/frame`` shows an address in its frame."""
    outer = FastAPI()

    @outer.get("/frame", response_class=HTMLResponse)
    def frame(address: str) -> str:
        allowed = "allow-scripts allow-same-origin allow-forms allow-downloads"
        return (
            f'<!doctype html><link rel=icon href="data:,"><iframe sandbox="{allowed}" src="{escape(address)}"></iframe>'
        )

    outer.mount(prefix, create_app(lambda: ledger, guard))
    return outer


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Serve an application until the end of the block; gives its address."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off"))
    ready = threading.Event()
    started = server.startup

    async def startup(*args: Any, **kwargs: Any) -> None:
        await started(*args, **kwargs)
        ready.set()

    server.startup = startup  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert ready.wait(20), "the server did not start"
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)
