"""Becoming root on a target: the constant command line, and what goes before the program on its standard input.

Without a password ``sudo -n`` is used. With one, it goes through standard input: no process list, log or file has it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from shlex import quote

from patching.channels.remote_job import remote_command
from patching.sources.base import Connection

# A comment on purpose: where it reaches the program, it does nothing there.
_MARK = "#patching"

_ASKED = """\
IFS= read -r word || exit 1
said=$(printf "%s\\n" "$word" | sudo -S -p "" -v 2>&1) || {
  printf "sudo: %s\\n" "$(printf "%s\\n" "$said" | tail -n 1 | sed "s/^sudo: //")" >&2
  exit 1
}
{ printf "%s\\n@MARK@\\n" "$word"; exec cat; } | sudo -S -p "" /bin/sh -c @INNER@
"""

_INNER = 'IFS= read -r line; [ "$line" = "@MARK@" ] || IFS= read -r line; '


@dataclass(frozen=True)
class RemoteCommand:
    """A command line, and what its standard input begins with, before the program that it runs."""

    line: str
    lead: str = field(default="", repr=False)


def sudo_password(connection: Connection) -> str | None:
    """Give the password for sudo: the extra ``sudo_password``, else the login's own; None: sudo must need none."""
    found = connection.extra.get("sudo_password") or connection.password
    return str(found) if found else None


def command(*, sudo: bool, seconds: float, password: str | None = None) -> RemoteCommand:
    """Give the command that runs the program on its standard input, as root where asked, for ``seconds`` at most.

    A wrong password is tried once and never again in its place: the program's own lines would be taken for passwords.
    Raises ValueError for a password of more than one line.
    """
    if not sudo or password is None:
        return RemoteCommand(remote_command(sudo=sudo, seconds=seconds))
    if "\n" in password or "\r" in password:
        raise ValueError("a password for sudo has one line")
    inner = _INNER.replace("@MARK@", _MARK) + remote_command(sudo=False, seconds=seconds)
    outer = _ASKED.replace("@MARK@", _MARK).replace("@INNER@", quote(inner))
    return RemoteCommand(f"exec /bin/sh -c {quote(outer)}", f"{password}\n")
