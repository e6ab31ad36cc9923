"""The reference page of the command line: every command with its arguments, options and exit codes, from the code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from patching.cli.main import COMMANDS, available, typer_command

EXIT_CODES = {
    0: "it is done, and all is well",
    1: "invalid, refused or failed; the message says what and why",
    2: "wrong use, or an error of our own, which is a bug",
    3: "pending: a person or time has to do something first",
}

_INTRO = """\
`patching COMMAND --help` says the same in the terminal. Results go to stdout, progress and errors to stderr, so that
output can be piped; `--json` gives one document for programs. `patching --version` says which version it is.

Commands that ask Airflow take its address from `--url` or `PATCHING_URL`, and the login from `PATCHING_USER` and
`PATCHING_PASSWORD`, or `PATCHING_TOKEN`. `patching ledger` reads the ledger's database itself."""

_RAW = "See [the lab](../../tests/lab/README.md) for its commands; it is part of a checkout, not of the package."


def page() -> str:
    """Write the page in Markdown; a command that this installation lacks is not on it."""
    lines = ["# The command line", "", *_INTRO.splitlines(), "", "| exit code | means |", "|---|---|"]
    lines += [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    lines += ["", "| command | what for |", "|---|---|"]
    lines += [f"| [`{name}`](#patching-{name}) | {COMMANDS[name].words} |" for name in available()]
    for name in available():
        lines += ["", *_section(name)]
    return "\n".join(lines) + "\n"


def commands() -> Iterator[tuple[str, Any]]:
    """Give every command that takes options, with its whole name: ``patching ledger verify``."""
    for name in available():
        if not COMMANDS[name].raw:
            yield from _leaves(f"patching {name}", typer_command(name))


def _leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    parts = getattr(command, "commands", None) or {}
    if not parts:
        yield name, command
    for part, inner in parts.items():
        yield from _leaves(f"{name} {part}", inner)


def _section(name: str) -> list[str]:
    heading = [f"## patching {name}", ""]
    if COMMANDS[name].raw:
        return [*heading, COMMANDS[name].words, "", _RAW]
    command = typer_command(name)
    if not getattr(command, "commands", None):
        return [*heading, *_described(f"patching {name}", command)]
    parts = [COMMANDS[name].words]
    for full, leaf in _leaves(f"patching {name}", command):
        parts += ["", f"### {full}", "", *_described(full, leaf)]
    return [*heading, *parts]


def _described(name: str, command: Any) -> list[str]:
    """Describe one command: how it is called, what it does, and its parameters."""
    shown = [param for param in command.params if not param.hidden and param.name != "help"]
    places = [param for param in shown if _positional(param)]
    needed = [_option(param) for param in shown if param.required and param not in places]
    more = ["[OPTIONS]"] if len(places) + len(needed) < len(shown) else []
    usage = [name, *(_place(param) for param in places), *needed, *more]
    lines = ["```text", " ".join(usage), "```", "", *(command.help or "").strip().splitlines()]
    if shown:
        lines += ["", "| argument or option | default | meaning |", "|---|---|---|"]
    for param in shown:
        called = f"`{_place(param)}`" if _positional(param) else f"`{_option(param)}`"
        meaning = (param.help or "").replace("|", r"\|")
        lines.append(f"| {called} | {_default(param)} | {meaning} |")
    return lines


def _positional(param: Any) -> bool:
    return not param.opts[0].startswith("-")


def _place(param: Any) -> str:
    word = param.metavar or param.name.upper()
    more = "..." if param.nargs == -1 and not word.endswith("...") else ""
    return f"{word}{more}" if param.required or word.startswith("[") else f"[{word}{more}]"


def _option(param: Any) -> str:
    names = ", ".join(param.opts) + "".join(f"/{name}" for name in param.secondary_opts)
    return names if param.is_flag else f"{names} {param.metavar or _kind(param)}"


def _kind(param: Any) -> str:
    kind = param.type_descriptor.annotation
    return {"int": "NUMBER", "float": "NUMBER", "Path": "PATH"}.get(getattr(kind, "__name__", ""), "TEXT")


def _default(param: Any) -> str:
    if param.required:
        return "**required**"
    if getattr(param, "is_flag", False):
        return f"`{param.opts[0]}`" if param.default else "–"
    return "–" if param.default in (None, "", (), []) else f"`{param.default}`"
