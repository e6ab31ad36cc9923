"""Stand-ins for dpkg, dpkg-query and dpkg-deb on a simulated host."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from lab.simhost import apt, archive, solver, state

DEFAULT_FORMAT = "${binary:Package}\t${Version}\n"
STATUS = {"ii": "install ok installed", "iU": "install ok unpacked", "iF": "install ok half-configured"}


def fields(host: dict[str, Any], name: str) -> dict[str, str]:
    """Give the fields that dpkg-query can show of an installed package."""
    entry = host["packages"][name]
    binary = archive.find(name, entry["version"])
    held = name in host["held"]
    source = binary.source if binary else name
    words = STATUS[entry["status"]].replace("install", "hold", 1) if held else STATUS[entry["status"]]
    return {
        "Package": name, "binary:Package": name, "Version": entry["version"], "Architecture": "all", "Status": words,
        "db:Status-Abbrev": ("h" if held else "i") + entry["status"][1] + " ", "db:Status-Want": words.split()[0],
        "db:Status-Status": words.split()[2], "db:Status-Eflag": "ok", "source:Package": source, "Source": source,
        "source:Version": entry["version"], "source:Upstream-Version": entry["version"].rpartition("-")[0],
        "Depends": binary.depends if binary else "", "binary:Summary": binary.tells if binary else "",
        "Section": "net", "Priority": "optional", "Installed-Size": "12", "Essential": "no",
        "Conffiles": "", "Maintainer": "Lab <lab@lab.invalid>",
    }  # fmt: skip


def show(form: str, values: dict[str, str]) -> str:
    """Fill in a format of dpkg-query; widths are ignored."""
    text = form.replace("\\n", "\n").replace("\\t", "\t")
    return re.sub(r"\$\{([^};]+)(?:;-?\d+)?\}", lambda found: values.get(found[1], ""), text)


def query_words(argv: list[str]) -> tuple[str, list[str]]:
    """Split dpkg-query's command line into the format and the names."""
    form, names, rest = DEFAULT_FORMAT, [], iter(argv)
    for word in rest:
        if word in ("-f", "--showformat"):
            form = next(rest, form)
        elif word.startswith(("-f", "--showformat=")):
            form = word.removeprefix("--showformat=").removeprefix("-f").removeprefix("=")
        elif not word.startswith("-"):
            names.append(word.partition(":")[0])
    return form, names


def dpkg_query(argv: list[str]) -> int:
    """List packages; the code is 1 when one that was named is not there."""
    form, names = query_words(argv)
    host = state.read(state.here())
    missing = [name for name in names if name not in host["packages"]]
    for name in names or sorted(host["packages"]):
        if name not in missing:
            sys.stdout.write(show(form, fields(host, name)))
    for name in missing:
        print(f"dpkg-query: no packages found matching {name}", file=sys.stderr)
    return 1 if missing else 0


def dpkg(argv: list[str]) -> int:
    """Answer what scripts ask dpkg; only --configure -a changes something."""
    words = [word for word in argv if not word.startswith("--force")]
    if "--configure" in words:
        root = state.here()
        with state.changing(root) as host:
            broken = [name for name, entry in host["packages"].items() if entry["status"] != "ii"]
            results = [apt.configure(root, host, name) for name in broken]
        return 0 if all(results) else 1
    match words:
        case ["--print-architecture"]:
            print("amd64")
        case ["--compare-versions", left, relation, right]:
            return 0 if compare(left, relation, right) else 1
        case ["--audit" | "-C", *_]:
            packages = state.read(state.here())["packages"]
            print("".join(f" {name}\n" for name, entry in packages.items() if entry["status"] != "ii"), end="")
        case ["-s" | "--status" | "-l" | "--list" | "-W", *names]:
            return dpkg_query(["-W", *names])
        case ["--get-selections", *_]:
            print("".join(f"{name}\tinstall\n" for name in state.read(state.here())["packages"]), end="")
        case _:
            print(f"dpkg: error: a simulated host cannot {' '.join(words)}", file=sys.stderr)
            return 2
    return 0


def compare(left: str, relation: str, right: str) -> bool:
    """Compare versions in dpkg's words."""
    before, after, same = solver.newer(right, left), solver.newer(left, right), left == right
    return {"lt": before, "le": before or same, "eq": same, "ne": not same, "ge": after or same, "gt": after}[relation]


def dpkg_deb(argv: list[str]) -> int:
    """Tell the fields of a file that stands for a package."""
    words = [word for word in argv if not word.startswith("--show")]
    if words[:1] not in (["-f"], ["--field"], ["-W"], ["-I"]) or archive.from_file(Path(words[1])) is None:
        print("dpkg-deb: error: not a Debian format archive", file=sys.stderr)
        return 2
    values = {key: str(value) for key, value in json.loads(Path(words[1]).read_text()).items()}
    if len(words) == 3:
        print(values.get(words[2], ""))
    else:
        print("".join(f"{name}: {values.get(name, '')}\n" for name in words[2:] or values), end="")
    return 0
