"""What apt would do to a simulated host: small enough to read, right for packages that need each other exactly."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.packages import Binary
from lab.simhost import archive, state


class Unsolvable(Exception):
    """Apt would refuse; the message is what it would say."""


@dataclass
class Change:
    """A transaction: what is installed in which version, and what is removed."""

    install: dict[str, Binary] = field(default_factory=dict)
    remove: dict[str, str] = field(default_factory=dict)


def newer(left: str, right: str) -> bool:
    """Compare two of the lab's versions as dpkg does: digits as numbers, and a suffix is later than none."""

    def key(version: str) -> list[tuple[int, str]]:
        return [(int(digits or 0), text) for text, digits in re.findall(r"(\D*)(\d*)", version)]

    return key(left) > key(right)


class Solver:
    """Works out one transaction on one host."""

    def __init__(self, root: Path, host: dict[str, Any], flags: set[str]) -> None:
        self.host = host
        self.flags = flags
        self.offers = archive.known_offers(root)
        self.given: dict[str, Binary] = {}
        self.change = Change()

    def solve(self, wanted: list[str]) -> Change:
        """Work the transaction out.

        Raises:
            Unsolvable: where apt would refuse.
        """
        for word in wanted:
            self.ask_for(word)
        for binary in list(self.change.install.values()):
            self.complete(binary)
        self.bring_along()
        self.check()
        return self.change

    def ask_for(self, word: str) -> None:
        """Understand one word of the command line: a file, ``name``, ``name=version`` or ``name-``."""
        if word.endswith(".deb"):
            binary = archive.from_file(Path(word))
            if binary is None:
                raise Unsolvable(f"Unsupported file {word} given on commandline")
            self.change.install[binary.package] = self.given[binary.package] = binary
            return
        name, _, version = word.partition("=")
        unwanted = name.endswith("-")
        name = name.removesuffix("-").partition(":")[0]
        if unwanted and name in self.host["packages"]:
            self.change.remove[name] = self.host["packages"][name]["version"]
            return
        now = self.host["packages"].get(name, {}).get("version")
        found = self.choose(name, version, now)
        if found is not None and found.version != now:
            self.change.install[name] = found

    def choose(self, name: str, version: str, now: str | None) -> Binary | None:
        """Choose what to install for a name; None when there is nothing to do."""
        offered = self.offers[name].binary if name in self.offers else None
        if version:
            if offered is not None and offered.version == version:
                return offered
            if now == version:
                return None
            raise Unsolvable(f"Version '{version}' for '{name}' was not found")
        if offered is None and now is None:
            raise Unsolvable(f"Unable to locate package {name}")
        return offered if offered and (now is None or newer(offered.version, now)) else None

    def complete(self, binary: Binary) -> None:
        """Add what a package needs and is not there."""
        for needed, version in archive.needs(binary).items():
            planned = self.change.install.get(needed)
            there = planned.version if planned else self.host["packages"].get(needed, {}).get("version")
            if needed not in self.change.remove and there is not None and version in (None, there):
                continue
            choices = [self.given.get(needed), self.offers[needed].binary if needed in self.offers else None]
            found = next((choice for choice in choices if choice and version in (None, choice.version)), None)
            if found is None or needed in self.change.remove:
                wants = f"{needed} (= {version})" if version else needed
                raise Unsolvable(
                    f"The following packages have unmet dependencies:\n {binary.package} : Depends: {wants}"
                )
            self.change.install[needed] = found
            self.complete(found)

    def bring_along(self) -> None:
        """Bring along, or take away, installed packages that need another version of what changes."""
        for name, version in state.installed(self.host).items():
            binary = archive.find(name, version)
            if binary is None or name in self.change.install or name in self.change.remove:
                continue
            broken = [needed for needed, exactly in archive.needs(binary).items() if self.breaks(needed, exactly)]
            offer = self.offers.get(name)
            if broken and offer is not None and not self.lacking(offer.binary):
                self.change.install[name] = offer.binary
                self.complete(offer.binary)
            elif broken:
                self.change.remove[name] = version

    def breaks(self, needed: str, exactly: str | None) -> bool:
        """Tell whether the transaction takes away what somebody needs."""
        planned = self.change.install.get(needed)
        return needed in self.change.remove or (planned is not None and exactly not in (None, planned.version))

    def lacking(self, binary: Binary) -> bool:
        """Tell whether a package could not live with what is planned."""
        return any(self.breaks(needed, exactly) for needed, exactly in archive.needs(binary).items())

    def check(self) -> None:
        """Refuse what apt refuses without being told otherwise."""
        change, now = self.change, state.installed(self.host)
        held = {*change.install, *change.remove} & set(self.host["held"])
        if held and "--allow-change-held-packages" not in self.flags:
            raise Unsolvable("Held packages were changed and -y was used without --allow-change-held-packages.")
        down = [name for name, binary in change.install.items() if name in now and newer(now[name], binary.version)]
        if down and not self.flags & {"--allow-downgrades", "--force-yes"} and "-y" in self.flags:
            raise Unsolvable("Packages were downgraded and -y was used without --allow-downgrades.")
        if change.remove and "--no-remove" in self.flags:
            raise Unsolvable("Packages need to be removed but remove is disabled.")
