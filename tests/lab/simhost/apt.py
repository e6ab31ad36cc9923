"""Stand-ins for apt-get, apt-cache and apt-mark on a simulated host."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from lab import packages
from lab.simhost import archive, solver, state

SIMULATE = {"-s", "--simulate", "--just-print", "--dry-run", "--no-act", "--recon"}
SHORT = {"-y": "-y", "--yes": "-y", "--assume-yes": "-y", "-d": "--download-only"}


def split(argv: list[str]) -> tuple[str, list[str], set[str]]:
    """Split a command line into its verb, its words and its flags; options with a value are taken note of as one."""
    words, flags, rest = [], set(), iter(argv)
    for word in rest:
        if word in ("-o", "-c", "-t", "--option"):
            flags.add(f"-o{next(rest, '')}")
        elif word.startswith(("-o", "--")):
            flags.add(SHORT.get(word, word))
        elif word.startswith("-") and len(word) > 1:
            flags.update(SHORT.get(f"-{letter}", f"-{letter}") for letter in word[1:])
        else:
            words.append(word)
    return (words[0] if words else ""), words[1:], flags


def fail(message: str) -> int:
    """Say an error as apt does."""
    print(f"E: {message}", file=sys.stderr)
    return 100


def apt_get(argv: list[str]) -> int:
    """Do what apt-get would."""
    verb, words, flags = split(argv)
    root = state.here()
    if verb == "update":
        archive.learn(root, Path(os.environ[state.MARK]))
        print("Reading package lists...")
        return 0
    if verb in ("clean", "autoclean", "check", "autoremove"):
        if verb == "clean":
            for file in (root / archive.CACHE).glob("*.deb"):
                file.unlink()
        return 0
    if verb == "download":
        return download(root, words)
    if verb in ("upgrade", "dist-upgrade", "full-upgrade"):
        words = [name for name in archive.known_offers(root) if name in state.read(root)["packages"]]
    elif verb in ("remove", "purge"):
        words = [f"{name}-" for name in words]
    elif verb != "install":
        return fail(f"Invalid operation {verb}")
    return install(root, words, flags)


def download(root: Path, words: list[str]) -> int:
    """Put the files of offered packages into the working directory."""
    offers = archive.known_offers(root)
    for word in words:
        name, _, version = word.partition("=")
        offer = offers.get(name.partition(":")[0])
        if offer is None or version not in ("", offer.binary.version):
            return fail(f"Version '{version}' for '{name}' was not found")
        archive.keep(Path.cwd(), offer.binary, "")
    return 0


def install(root: Path, words: list[str], flags: set[str]) -> int:
    """Install, or say what would be installed."""
    with state.changing(root) as host:
        broken = [name for name, entry in host["packages"].items() if entry["status"] != "ii"]
        try:
            change = solver.Solver(root, host, flags).solve(words)
        except solver.Unsolvable as refusal:
            return fail(str(refusal))
        announce(root, host, change)
        if "--print-uris" in flags:
            return print_uris(root, change)
        if flags & SIMULATE:
            rehearse(root, host, change)
            return 0
        if host["disk_full"] and change.install:
            return fail(f"You don't have enough free space in {root / archive.CACHE}/.")
        for binary in change.install.values():
            if (error := fetch(root, binary, words)) is not None:
                return fail(error)
        if "--download-only" in flags:
            print("Download complete and in download only mode")
            return 0
        return carry_out(root, host, change, broken)


def announce(root: Path, host: dict[str, Any], change: solver.Change) -> None:
    """Print the summary that apt prints first."""
    print("Reading package lists...\nBuilding dependency tree...\nReading state information...")
    now = state.installed(host)
    up = [name for name in change.install if name in now]
    new = [name for name in change.install if name not in now]
    print(f"{len(up)} upgraded, {len(new)} newly installed, {len(change.remove)} to remove and 0 not upgraded.")


def print_uris(root: Path, change: solver.Change) -> int:
    """Print where the files come from, with sizes and hashes."""
    for binary in change.install.values():
        if not (root / archive.CACHE / binary.filename).exists():
            size = len(archive.file_content(binary))
            where = f"{archive.URL}/pool/lab-security/{binary.filename}"
            print(f"'{where}' {binary.filename} {size} SHA256:{archive.sha256(binary)}")
    return 0


def rehearse(root: Path, host: dict[str, Any], change: solver.Change) -> None:
    """Print the transaction line by line, as ``apt-get -s`` does."""
    offers, now = archive.known_offers(root), state.installed(host)
    for name, version in change.remove.items():
        print(f"Remv {name} [{version}]")
    for verb in ("Inst", "Conf"):
        for name, binary in change.install.items():
            offer = offers.get(name)
            origin = offer.origin if offer and offer.binary.version == binary.version else "local-deb"
            before = f"[{now[name]}] " if verb == "Inst" and name in now else ""
            print(f"{verb} {name} {before}({binary.version} {origin} [all])")


def fetch(root: Path, binary: packages.Binary, words: list[str]) -> str | None:
    """Have a package's file at hand; gives what apt would say when there is none."""
    if any(Path(word).name == binary.filename for word in words):
        return None
    cached = root / archive.CACHE / binary.filename
    if cached.exists() and archive.from_file(cached) is not None:
        return None
    current = archive.offers(Path(os.environ[state.MARK])).get(binary.package)
    if current is None or current.binary.version != binary.version:
        return f"Failed to fetch {archive.URL}/pool/lab-security/{binary.filename}  404  File not found"
    archive.keep(root, binary)
    return None


def carry_out(root: Path, host: dict[str, Any], change: solver.Change, broken: list[str]) -> int:
    """Change the packages; a failing script leaves its package half installed."""
    for name, version in change.remove.items():
        print(f"Removing {name} ({version}) ...")
        del host["packages"][name]
    for name, binary in change.install.items():
        print(f"Unpacking {name} ({binary.version}) ...")
        host["packages"][name] = {"version": binary.version, "status": "iU"}
    failed = False
    for name in dict.fromkeys([*broken, *change.install]):
        if name in host["packages"]:
            failed |= not configure(root, host, name)
    return fail("Sub-process /usr/bin/dpkg returned an error code (1)") if failed else 0


def configure(root: Path, host: dict[str, Any], name: str) -> bool:
    """Run what stands for a package's configuration; gives whether it went well."""
    entry = host["packages"][name]
    print(f"Setting up {name} ({entry['version']}) ...")
    if name == packages.SOURCE_PACKAGE:
        release = packages.release(entry["version"])
        if release.postinst_fails:
            print("shopfront: cannot migrate the catalogue", file=sys.stderr)
            print(f"dpkg: error processing package {name} (--configure):", file=sys.stderr)
            entry["status"] = "iF"
            return False
        if release.wants_reboot:
            run = root / "run"
            (run / "reboot-required").touch()
            with (run / "reboot-required.pkgs").open("a") as out:
                out.write("shopfront\n")
        host["serving"] = entry["version"]
    entry["status"] = "ii"
    return True


def apt_cache(argv: list[str]) -> int:
    """Do what apt-cache would: policy, madison and show."""
    verb, words, _ = split(argv)
    root = state.here()
    offers, now = archive.known_offers(root), state.installed(state.read(root))
    if verb == "policy" and not words:
        policy_files()
        return 0
    for word in words or sorted({*offers, *now}):
        name, _, version = word.partition("=")
        offer = offers.get(name)
        if offer is None and name not in now:
            continue
        if verb == "policy":
            policy(name, offer, now.get(name))
        elif offer is not None and verb == "madison":
            print(f" {name} | {offer.binary.version} | {archive.URL} {offer.suite}/main amd64 Packages")
        elif offer is not None and verb == "show" and version in ("", offer.binary.version):
            binary = offer.binary
            print(f"Package: {name}\nSource: {binary.source}\nVersion: {binary.version}\nArchitecture: all")
            print(f"Depends: {binary.depends}\nFilename: pool/{offer.suite}/{binary.filename}")
            print(f"Size: {len(archive.file_content(binary))}\nSHA256: {archive.sha256(binary)}\n")
    return 0


def policy_files() -> None:
    """Print the indexes that the host knows."""
    print("Package files:\n 100 /var/lib/dpkg/status\n     release a=now")
    for suite, label in archive.LABELS.items():
        print(f" 500 {archive.URL} {suite}/main amd64 Packages")
        print(f"     release o=Lab,a={suite},n={suite},l={label},c=main,b=amd64\n     origin 10.77.0.1")
    print("Pinned packages:")


def apt_config(argv: list[str]) -> int:
    """Tell the settings that matter: nothing patches by itself unless a test says so."""
    if argv[:1] == ["dump"]:
        print('APT::Periodic "";\nAPT::Periodic::Update-Package-Lists "0";\nAPT::Periodic::Unattended-Upgrade "0";')
    return 0


def policy(name: str, offer: archive.Offer | None, now: str | None) -> None:
    """Print what apt-cache policy says of one package."""
    candidate = offer.binary.version if offer and (now is None or solver.newer(offer.binary.version, now)) else now
    print(f"{name}:\n  Installed: {now or '(none)'}\n  Candidate: {candidate}\n  Version table:")
    if offer is not None:
        mark = "***" if offer.binary.version == now else "   "
        print(f" {mark} {offer.binary.version} 500\n        500 {archive.URL} {offer.suite}/main amd64 Packages")
    if now is not None:
        if offer is None or offer.binary.version != now:
            print(f" *** {now} 100")
        print("        100 /var/lib/dpkg/status")


def apt_mark(argv: list[str]) -> int:
    """Hold packages, or tell which are held."""
    verb, words, _ = split(argv)
    with state.changing(state.here()) as host:
        if verb == "showhold":
            print("".join(f"{name}\n" for name in host["held"] if not words or name in words), end="")
        elif verb == "hold":
            host["held"] = sorted({*host["held"], *words})
        elif verb == "unhold":
            host["held"] = sorted({*host["held"]} - {*words})
    return 0
