"""The lab's control socket: one JSON object a line asked, one answered."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from lab.layout import LabError

Answer = Callable[[dict[str, Any]], Awaitable[Any]]
LIMIT = 64 * 1024 * 1024


def short_path(directory: int, name: str) -> str:
    """Name a socket through a descriptor of its directory: a socket's address holds only 108 bytes."""
    return f"/proc/self/fd/{directory}/{name}"


def ask(path: Path, patience: float = 60, /, **request: Any) -> Any:
    """Ask the lab for something and give back its answer.

    Raises:
        LabError: when no lab listens, when it does not answer in time, or with its own refusal.
    """
    try:
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        raise LabError("no lab is up here: run `patching lab up`") from None
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(patience)
            client.connect(short_path(directory, path.name))
            client.sendall(json.dumps(request).encode() + b"\n")
            with client.makefile("rb") as answers:
                answer = json.loads(answers.readline() or b'{"error": "the lab ended while it was asked"}')
    except (ConnectionRefusedError, FileNotFoundError):
        raise LabError("no lab is up here: run `patching lab up`") from None
    except TimeoutError:
        raise LabError(f"the lab did not answer {request.get('do')!r} within {patience:.0f} s") from None
    finally:
        os.close(directory)
    if "error" in answer:
        raise LabError(answer["error"])
    return answer["result"]


async def serve(path: Path, answer: Answer) -> asyncio.Server:
    """Listen on the control socket and answer each request by itself."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await reply(answer, line)).encode() + b"\n")
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        return await asyncio.start_unix_server(talk, short_path(directory, path.name), limit=LIMIT)
    finally:
        os.close(directory)


async def reply(answer: Answer, line: bytes) -> dict[str, Any]:
    """Turn a request into an answer, or an error into its message."""
    try:
        return {"result": await answer(json.loads(line))}
    except (LabError, OSError, ValueError, KeyError, TypeError) as error:
        return {"error": str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"}
