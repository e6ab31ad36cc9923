"""Beside: a watch that goes on while something else is done, and ends with it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager


@asynccontextmanager
async def beside(watch: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Carry ``watch`` out while the body runs and cancel it after; an error that it ended with is raised then."""
    watching = asyncio.create_task(watch)
    try:
        yield
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
