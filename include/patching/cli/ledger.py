"""``patching ledger``: prove that the record is whole, read it, and rebuild the state that is projected from it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from patching.errors import LedgerError
from patching.ledger.base import Head, Problem
from patching.ledger.entry import LedgerEntry
from patching.ledger.store import SqlLedger, open_ledger
from patching.value import JsonValue

SCHEMA = "patching/ledger-verify/v1"
_VARIABLES = ("PATCHING_LEDGER_URL", "AIRFLOW__PATCHING__LEDGER_URL")

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Verify and read the ledger.",
)

Url = Annotated[
    str,
    typer.Option("--url", help=f"Ledger database; default: ${_VARIABLES[0]}, then ${_VARIABLES[1]}.", metavar="URL"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Chain = Annotated[str, typer.Argument(help='A rollout\'s id, or "control".', metavar="CHAIN")]
Against = Annotated[
    Path | None,
    typer.Option(help="Output of an earlier verify --json, kept elsewhere: its heads must still be in the ledger."),
]


@app.command("verify")
def verify_command(url: Url = "", as_json: AsJson = False, against: Against = None) -> None:
    """Recompute every hash and check every referenced document.

    Exit code 0: whole. 1: something is wrong, or the ledger cannot be read. It ends with the heads of all chains:
    keep them elsewhere, because only they show that the whole database was not written anew.
    """
    kept = _kept(against) if against is not None else []
    ledger = open_named(url)
    problems = ledger.verify() + ledger.check_heads(kept)
    heads = ledger.heads()
    if as_json:
        _print_json(_document(ledger, problems, heads))
    else:
        _print_text(problems, heads, len(kept))
    if problems:
        raise typer.Exit(1)


@app.command("show")
def show_command(chain: Chain, url: Url = "", as_json: AsJson = False) -> None:
    """Print a chain, entry by entry: a rollout's id, or "control".

    Exit code 0: it is printed. 1: there is no such chain, or the ledger cannot be read.
    """
    entries = open_named(url).entries(chain)
    if not entries:
        print(f'the ledger has no chain "{chain}"; patching ledger verify lists all of them', file=sys.stderr)
        raise typer.Exit(1)
    if as_json:
        _print_json(
            {"schema": "patching/ledger-chain/v1", "chain": chain, "entries": [_plain(item) for item in entries]}
        )
        return
    for entry in entries:
        print(_line(entry))


@app.command("rebuild")
def rebuild_command(url: Url = "") -> None:
    """Build the projected state (rollouts, targets, leases …) anew from the entries; changes no entry.

    Refused while the ledger does not verify: state that is built from altered entries would be acted on.
    Exit code 0: it is built. 1: refused, or the ledger cannot be read.
    """
    ledger = open_named(url)
    problems = ledger.verify()
    if problems:
        _print_text(problems, [], 0)
        raise typer.Exit(1)
    ledger.rebuild()
    print("the projected state was built anew from the entries")


def open_named(url: str) -> SqlLedger:
    """Open the ledger of ``--url`` or of the environment; ends with exit code 2 where neither names one."""
    found = url or next((os.environ[name] for name in _VARIABLES if os.environ.get(name)), "")
    if not found:
        print(f"no ledger is named: give --url, or set {' or '.join(_VARIABLES)}", file=sys.stderr)
        raise typer.Exit(2)
    return open_ledger(found, create=False)


def _kept(path: Path) -> list[Head]:
    try:
        document = json.loads(path.read_text())
        return [Head.model_validate(item) for item in document["heads"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LedgerError(
            f"{path} has no heads ({type(error).__name__}): nothing was checked; give the output of verify --json"
        ) from error


def _document(ledger: SqlLedger, problems: list[Problem], heads: list[Head]) -> JsonValue:
    return {
        "schema": SCHEMA,
        "ledger": ledger.ledger_id,
        "at": ledger.now().isoformat(),
        "whole": not problems,
        "problems": [problem.model_dump() for problem in problems],
        "heads": [head.model_dump() for head in heads],
    }


def _print_text(problems: list[Problem], heads: list[Head], kept: int) -> None:
    for problem in problems:
        print(f"! {_harmless(problem.chain)} {problem.seq}: {_harmless(problem.message)}")
    for head in heads:
        print(f"  head {_harmless(head.chain)} {head.seq} {head.hash}")
    entries = sum(head.seq for head in heads)
    if problems:
        print(f"{len(problems)} problems: do not act on this ledger; see docs/runbooks/ledger-does-not-verify.md")
    else:
        against = f"; the {kept} heads kept elsewhere are in it" if kept else ""
        print(f"whole: {entries} entries in {len(heads)} chains{against}")


def _line(entry: LedgerEntry) -> str:
    about = _harmless(" ".join(part for part in (entry.target, entry.actor and f"by {entry.actor}") if part))
    body = json.dumps(entry.body, sort_keys=True)
    return f"{entry.seq:>5}  {entry.at:%Y-%m-%d %H:%M:%SZ}  {entry.kind.value:<18}  {about or '-'}  {body}"


def _harmless(text: str) -> str:
    """Escape what is not printable: what a host or a person wrote must not steer the terminal."""
    return text if text.isprintable() else ascii(text)


def _plain(entry: LedgerEntry) -> JsonValue:
    return entry.model_dump(mode="json")


def _print_json(document: JsonValue) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False))
