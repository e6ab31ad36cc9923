"""The command line ``patching``: a table of commands, each imported only when it is the one that was asked for.

Results go to stdout, progress and errors to stderr. Exit codes: 0 ok · 1 invalid, refused or failed · 2 wrong use or
internal error · 3 pending (a person or time has to do something first).
"""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module, metadata
from typing import Any, NamedTuple

OK, FAILED, WRONG_USE, PENDING = 0, 1, 2, 3


class Command(NamedTuple):
    """One command: ``module:attribute`` of a typer app or of a function with typer parameters, and its one line.

    A function may return its exit code. With ``raw`` it gets the remaining arguments as they are.
    """

    target: str
    words: str
    raw: bool = False


COMMANDS: dict[str, Command] = {
    "validate": Command("patching.cli.validate:validate", "Check policy files; needs no Airflow and no network."),
    "schema": Command("patching.cli.validate:schema", "Print the JSON Schema of policy files, for editors."),
    "plan": Command("patching.cli.plan:plan", "Show what a policy would do now, and why; changes nothing."),
    "run": Command("patching.cli.run:run", "Start a rollout of a policy through Airflow."),
    "status": Command("patching.cli.status:status", "Show open rollouts and what each one waits for."),
    "leases": Command("patching.cli.leases:leases", "Show who holds what since when, and who waits for whom."),
    "hold": Command("patching.cli.control:hold", "Hold a rollout: nothing new starts."),
    "resume": Command("patching.cli.control:resume", "Let a held rollout go on where it stopped."),
    "promote": Command("patching.cli.control:promote", "Promote the wave that a verdict holds, in your name."),
    "abort": Command("patching.cli.control:abort", "End a rollout; what is changed stays as it is."),
    "skip": Command("patching.cli.control:skip", "Leave a target that has not begun out of a rollout."),
    "retry": Command("patching.cli.control:retry", "Try failed targets once more in the same rollout."),
    "quarantine": Command(
        "patching.cli.quarantine:quarantine", "Show which targets no rollout touches, and until when."
    ),
    "release": Command("patching.cli.control:release", "Release a target from quarantine, or the place it keeps."),
    "incident": Command("patching.cli.incident:app", "What locks a policy: list, show, release."),
    "undo": Command("patching.cli.control:undo", "Put back what a rollout changed."),
    "stop-all": Command("patching.cli.control:stop_all", "Stop everything before its next step, or allow it again."),
    "report": Command("patching.cli.report:report", "Print the report of a rollout."),
    "judge": Command("patching.cli.judge:judge", "Judge recorded series as the canary judge would; needs no Airflow."),
    "compliance": Command(
        "patching.cli.compliance:compliance_command", "Say where every target stands with every finding; CSV and JSON."
    ),
    "heartbeat": Command("patching.cli.heartbeat:heartbeat", "Say when the scheduler was last heard of; for alarms."),
    "ledger": Command("patching.cli.ledger:app", "Verify and read the ledger."),
    "lab": Command("patching.cli.lab:lab", "Start, stop and visit the lab of real hosts (in a checkout).", raw=True),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Run one command and give its exit code; errors are already told."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(overview(), file=sys.stdout if argv else sys.stderr)
        return OK if argv else WRONG_USE
    if argv[0] in ("--version", "-V"):
        print(f"patching {metadata.version('airflow-managed-patching')}")
        return OK
    name, rest = argv[0], list(argv[1:])
    if name not in available():
        return _unknown(name)
    return _guarded(name, functools.partial(_invoke, name, rest))


def overview() -> str:
    """Write the list of commands and the exit codes."""
    width = max(map(len, available()))
    lines = [f"  {name:<{width}}  {COMMANDS[name].words}" for name in available()]
    head = "Usage: patching COMMAND [ARGS]...\n\nPatches hosts by policy, in waves, and undoes what goes wrong.\n"
    tail = "\nOptions: --help, --version; patching COMMAND --help tells more.\nExit codes: 0 ok, 1 invalid, "
    tail += "refused or failed, 2 wrong use or internal error, 3 pending."
    return "\n".join([head, "Commands:", *lines, tail])


def available() -> list[str]:
    """List the commands that this installation has, in the order of the table."""
    from importlib.util import find_spec

    return [name for name, command in COMMANDS.items() if find_spec(command.target.partition(":")[0]) is not None]


def typer_command(name: str) -> Any:
    """Give the command object of one command, for running it and for the reference page."""
    import typer
    import typer.main

    target = _load(name)
    if isinstance(target, typer.Typer):
        return typer.main.get_command(target)
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(name=name, help=target.__doc__)(_exiting(target))
    return typer.main.get_command(app)


def _invoke(name: str, rest: list[str]) -> int:
    if COMMANDS[name].raw:
        return int(_load(name)(rest) or OK)
    typer_command(name)(args=rest, prog_name=f"patching {name}")
    return OK


def _load(name: str) -> Any:
    module, _, attribute = COMMANDS[name].target.partition(":")
    return getattr(import_module(module), attribute)


def _exiting(function: Callable[..., int | None]) -> Callable[..., None]:
    """Make a function's returned number its exit code, which typer would ignore."""
    import typer

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> None:
        raise typer.Exit(function(*args, **kwargs) or OK)

    return call


def _guarded(name: str, call: Callable[[], int]) -> int:
    """Turn every way in which a command can end into an exit code, and tell errors on stderr."""
    from patching.diagnostics import PolicyError, render
    from patching.errors import PatchingError

    try:
        return call()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else (OK if end.code is None else FAILED)
    except KeyboardInterrupt:
        return 130
    except PolicyError as error:
        print("\n".join(render(item) for item in error.diagnostics), file=sys.stderr)
        return FAILED
    except PatchingError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except Exception:  # noqa: BLE001 -- nothing is swallowed: it is shown in full, and the exit code says so
        traceback.print_exc()
        print(f"internal error in patching {name}: this is a bug; please report the lines above", file=sys.stderr)
        return WRONG_USE


def _unknown(name: str) -> int:
    from patching.diagnostics import did_you_mean

    print(f'patching: no command "{name}"{did_you_mean(name, available())}', file=sys.stderr)
    return WRONG_USE


if __name__ == "__main__":
    main()
