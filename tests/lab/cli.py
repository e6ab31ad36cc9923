"""The lab's command line: results on stdout, progress on stderr."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence

from lab import startup
from lab.api import Lab
from lab.layout import DEFAULT_HOSTS, LabError, Layout
from lab.packages import EXTRAS, RELEASES
from lab.preflight import install_tools, preflight
from lab.process import only_one

Command = Callable[[argparse.Namespace], int]


def progress(line: str) -> None:
    """Tell how far it is."""
    print(line, file=sys.stderr, flush=True)


def up(args: argparse.Namespace) -> int:
    """Bring the lab up."""
    began = time.monotonic()
    if args.install_tools:
        for name in install_tools():
            progress(f"installed {name}")
    lab = bring_up(args)
    progress(f"up in {time.monotonic() - began:.1f} s")
    told = f"{len(lab.hosts)} {lab.about['kind']} hosts, {lab.layout.path('lab.json')}"
    print(json.dumps(lab.about) if args.json else told)
    return 0


def bring_up(args: argparse.Namespace) -> Lab:
    """Bring up real hosts, or simulated ones when those are asked for."""
    if not args.simulated:
        return Lab.up(args.hosts, say=progress)
    from lab.simulated import SimulatedLab

    progress("SIMULATED hosts: SSH is real, Debian is not")
    return SimulatedLab.up(args.hosts, say=progress)


def down(args: argparse.Namespace) -> int:
    """Take the lab down; when none is up, clear away what is left of one."""
    layout = Layout.default()
    with only_one(startup.lock_file(layout)):
        was = startup.running(layout)
        startup.clear(layout)
    print("the lab is down" if was else "no lab was up")
    return 0


def status(args: argparse.Namespace) -> int:
    """Tell about every host."""
    try:
        lab = Lab.attach()
    except LabError as error:
        print(json.dumps({"kind": None, "hosts": {}}) if args.json else error)
        return 1
    told = lab.status()
    for name, host in told["hosts"].items():
        host["packages"] = lab.versions(name) if host["power"] == "on" else {}
    if args.json:
        print(json.dumps(told, indent=2))
        return 0
    print(f"{told['kind']} hosts in {lab.layout.directory}; published: {told['published'] or 'nothing'}")
    for name, host in told["hosts"].items():
        cut = f"  cut ({host['cut']})" if host["cut"] else ""
        version = host["packages"].get("shopfront", "-")
        print(f"{name}  {host['zone']}  {host['power']:8} {host['boots']} boots  {version}{cut}")
    return 0


def ssh(args: argparse.Namespace) -> int:
    """Become an ssh that is logged in to a host."""
    command = Lab.attach().ssh_command(args.host, *args.argv)
    sys.stdout.flush()
    os.execvp(command[0], command)  # noqa: S606 - no shell is wanted


def run(args: argparse.Namespace) -> int:
    """Run a command in a host without SSH."""
    ran = Lab.attach().run(args.host, args.argv, within=args.within)
    sys.stdout.write(ran.stdout)
    sys.stderr.write(ran.stderr)
    return ran.code


def publish(args: argparse.Namespace) -> int:
    """Put a release into the index."""
    for name, version in Lab.attach().publish(args.what).items():
        print(f"{name} {version}")
    return 0


def act(args: argparse.Namespace) -> int:
    """Do something to the power, the cables or the disks of hosts."""
    lab = Lab.attach()
    if args.command == "restore":
        lab.restore(*args.who)
    elif args.command == "cut":
        lab.cut(*args.who, refuse=args.refuse)
    else:
        getattr(lab, args.command)(*args.who)
    return 0


def check(args: argparse.Namespace) -> int:
    """Tell whether real hosts are possible here."""
    problems = preflight()
    for problem in problems:
        print(problem)
    if not problems:
        print("real hosts are possible here")
    return 1 if problems else 0


def parser(prog: str) -> argparse.ArgumentParser:
    """Describe the commands."""
    root = argparse.ArgumentParser(prog=prog, description="Real Debian hosts without Docker, to try patching on.")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, call: Command) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=call.__doc__, description=call.__doc__)
        sub.set_defaults(call=call)
        return sub

    sub = add("up", up)
    sub.add_argument("--hosts", type=int, default=DEFAULT_HOSTS)
    sub.add_argument("--install-tools", action="store_true", help="apt-get install what is missing")
    sub.add_argument("--simulated", action="store_true", help="no real hosts: SSH servers that only act as if")
    sub.add_argument("--json", action="store_true")
    add("down", down)
    add("status", status).add_argument("--json", action="store_true")
    add("check", check)
    for name, call in (("ssh", ssh), ("run", run)):
        sub = add(name, call)
        if name == "run":
            sub.add_argument("--within", type=float, default=60, help="seconds")
        sub.add_argument("host", help="web-01…" + (", or net: beside the hosts" if name == "run" else ""))
        sub.add_argument("argv", nargs=argparse.REMAINDER, metavar="command")
    add("publish", publish).add_argument("what", help=f"one of {', '.join([*RELEASES, *EXTRAS])}")
    for name in ("cut", "heal", "off", "on", "reset", "restore", "fill_disk", "free_disk"):
        sub = add(name, act)
        needed = name in ("cut", "off", "fill_disk")
        sub.add_argument(
            "who", nargs="+" if needed else "*", help="hosts or zones" + ("" if needed else " (none: all)")
        )
        if name == "cut":
            sub.add_argument("--refuse", action="store_true", help="refuse connections instead of falling silent")
    return root


def main(argv: Sequence[str] | None = None, prog: str = "patching lab") -> int:
    """Do what the command line says; gives the exit code."""
    args = parser(prog).parse_args(argv)
    if getattr(args, "argv", None) and args.argv[0] == "--":
        del args.argv[0]
    if args.command == "ssh" and len(args.argv) > 1:
        args.argv = [shlex.join(args.argv)]
    try:
        return int(args.call(args))
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
