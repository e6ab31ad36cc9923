"""Stand-ins for sudo, systemctl, needrestart and the power commands on a simulated host."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lab.simhost import state

TIMERS = ("apt-daily.timer", "apt-daily-upgrade.timer", "unattended-upgrades.service")


def sudo(argv: list[str]) -> int:
    """Become the command: every user of a simulated host is the one who started the lab."""
    words = list(argv)
    while words and (words[0].startswith("-") or "=" in words[0].split("/")[0]):
        word = words.pop(0)
        if word in ("-u", "-g") and words:
            words.pop(0)
        elif word == "--":
            break
        elif not word.startswith("-"):
            name, _, value = word.partition("=")
            os.environ[name] = value
    if not words:
        return 0
    return become(words)


def runuser(argv: list[str]) -> int:
    """Become the command after ``--``, as whoever this is."""
    return become(argv[argv.index("--") + 1 :])


def become(words: list[str]) -> int:
    """Replace this process by a command."""
    try:
        os.execvp(words[0], words)  # noqa: S606 - no shell is wanted
    except FileNotFoundError:
        print(f"{words[0]}: command not found", file=sys.stderr)
        return 127


def power(mode: str) -> int:
    """Have the lab restart or stop this host; what runs here ends with it."""
    # Here, not above: most stand-ins never need it, and it is slow to load.
    from lab import control

    directory = Path(os.environ[state.MARK])
    control.ask(directory / "control.sock", 20, do=mode, who=[state.here().name])
    return 0


def shutdown(argv: list[str]) -> int:
    """Restart or stop, as the flags say."""
    return power("reset" if "-r" in argv or "--reboot" in argv else "off")


def systemctl(argv: list[str]) -> int:
    """Answer about units, and restart the one there is."""
    words = [word for word in argv if not word.startswith("-")]
    verb, units = (words[0] if words else ""), [name.removesuffix(".service") for name in words[1:]]
    if verb in ("reboot", "kexec"):
        return power("reset")
    if verb in ("poweroff", "halt"):
        return power("off")
    if verb == "is-system-running":
        print("running")
        return 0
    with state.changing(state.here()) as host:
        if verb in ("start", "restart", "stop", "reload", "try-restart", "enable", "disable", "mask", "unmask"):
            return change(host, verb, units, now="--now" in argv)
        if verb in ("is-active", "is-enabled"):
            answers = [bool(host["units"].get(name)) for name in units]
            yes, no = ("active", "inactive") if verb == "is-active" else ("enabled", "disabled")
            print("".join(f"{yes if good else no}\n" for good in answers), end="")
            return 0 if all(answers) else (3 if verb == "is-active" else 1)
        if verb == "show":
            for name in units:
                active = "active" if host["units"].get(name) else "inactive"
                print(f"Id={name}\nLoadState=loaded\nActiveState={active}\nSubState=running\nUnitFileState=enabled\n")
    return 0


def change(host: dict[str, dict[str, bool]], verb: str, units: list[str], *, now: bool) -> int:
    """Change units; a restart of the shop loads the version that is installed."""
    for name in units:
        if verb in ("start", "restart", "try-restart", "reload"):
            host["units"][name] = True
        elif verb in ("stop", "mask") or (verb == "disable" and now):
            host["units"][name] = False
        elif verb == "enable" and (now or name in TIMERS):
            host["units"][name] = True
    return 0


def needrestart(argv: list[str]) -> int:
    """Say that nothing runs replaced files: a simulated service is restarted by its package."""
    if "-b" in argv or "-p" in argv:
        print("NEEDRESTART-VER: 3.6\nNEEDRESTART-KCUR: simulated\nNEEDRESTART-KEXP: simulated\nNEEDRESTART-KSTA: 1")
    return 0


def hostname(argv: list[str]) -> int:
    """Tell the host's name."""
    print(state.here().name)
    return 0


def df(argv: list[str]) -> int:
    """Show the disk once for each place that is asked for, full when the lab says so; sizes are made up."""
    full = state.read(state.here())["disk_full"]
    free = 0 if full else 1_900_000
    if any(word.startswith("--output") for word in argv):
        fields = next(word for word in argv if word.startswith("--output")).partition("=")[2].split(",")
        scale = 1024 if "-B1" in argv or "--block-size=1" in argv else 1
        values = {"avail": free * scale, "size": 2_000_000 * scale, "used": (2_000_000 - free) * scale, "target": "/",
                  "iavail": 100_000, "pcent": f"{100 if full else 5}%", "source": "simulated"}  # fmt: skip
        print(" ".join(fields) + "\n" + " ".join(str(values.get(name, "-")) for name in fields))
        return 0
    print("Filesystem     1K-blocks  Used Available Use% Mounted on")
    for _ in [word for word in argv if not word.startswith("-")] or ["/"]:
        print(f"simulated        2000000 {2_000_000 - free} {free} {100 if full else 5}% /")
    return 0
