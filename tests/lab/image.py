"""The root file system that all hosts share: a Debian point release, and on top of it what makes a lab host."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path

from lab import packages, repository
from lab.keys import client_key
from lab.layout import SOURCE, Layout
from lab.process import checked, sandboxed

SUITE = "bookworm"
FALLBACK_MIRROR = "http://deb.debian.org/debian"
INCLUDE = (
    "systemd-sysv", "dbus", "openssh-server", "python3", "iproute2", "procps", "unattended-upgrades", "needrestart",
    "sudo", "curl", "ca-certificates",
)  # fmt: skip
OPTIONS = (
    "--variant=apt",
    "--aptopt=Acquire::Languages none",
    "--aptopt=Apt::Install-Recommends false",
    "--dpkgopt=force-unsafe-io",
    *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man")),
)


def mirror() -> str:
    """Give the mirror that this machine's apt uses for Debian itself, so that no other network path is needed."""
    for file in (Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))):
        if not file.is_file():
            continue
        for line in file.read_text(errors="replace").splitlines():
            found = re.match(r"\s*(?:deb\s+(?:\[[^]]*\]\s+)?|URIs:\s*)(\S+/debian)/?(?:\s|$)", line)
            if found:
                return found[1]
    return FALLBACK_MIRROR


def base_digest() -> str:
    """Tell one recipe of the base from another."""
    return hashlib.sha256(repr((SUITE, INCLUDE, OPTIONS, os.uname().machine, 1)).encode()).hexdigest()[:16]


def base(layout: Layout) -> Path:
    """Build the base, or unpack it from the cache, or find it unpacked.

    Raises:
        LabError: when mmdebstrap or tar fails.
    """
    root = layout.cache / f"base-{base_digest()}{owner_suffix()}"
    archive = layout.cache / f"base-{base_digest()}.tar.zst"
    if root.is_dir():
        return root
    partial = root.with_suffix(".partial")
    discard(partial)
    layout.cache.mkdir(parents=True, exist_ok=True)
    log = layout.cache / "base.log"
    if archive.exists():
        partial.mkdir()
        checked(sandboxed(["tar", "--zstd", "-xf", str(archive), "-C", str(partial)]), log=log)
    else:
        source = f"deb {mirror()} {SUITE} main"
        include = f"--include={','.join(INCLUDE)}"
        mode = "--mode=root"
        checked(
            sandboxed(["mmdebstrap", mode, *OPTIONS, include, SUITE, str(partial), source]),
            log=log, env=os.environ | {"TMPDIR": str(layout.cache)},
        )  # fmt: skip
        fresh = archive.with_suffix(".partial")
        pack = ["tar", "-C", str(partial), "--exclude=./dev/*", "-I", "zstd -3 -T0", "-cf", str(fresh), "."]
        checked(sandboxed(pack), log=log)
        fresh.rename(archive)
    partial.rename(root)
    return root


def site(layout: Layout, below: Path) -> Path:
    """Make the layer with the lab's user, keys, sources and the shop's first release; gives its directory.

    Raises:
        LabError: when the script in it fails.
    """
    debs = packages.build(layout.cache)
    repository.signing_home(layout)
    key = client_key(layout).with_suffix(".pub").read_text()
    script = SOURCE / "site.sh"
    inputs = (below.name, packages.digest(), key, script.read_text(), keyring(layout).read_bytes())
    digest = hashlib.sha256(repr(inputs).encode()).hexdigest()[:16]
    layer = layout.cache / f"site-{digest}{owner_suffix()}"
    if (layer / "upper").is_dir():
        return layer / "upper"
    partial = layer.with_suffix(".partial")
    discard(partial)
    for name in ("upper", "work", "root"):
        (partial / name).mkdir(parents=True)
    names = " ".join(binary.filename for binary in packages.installed_first())
    given = {"BASE": str(below), "LAYER": str(partial), "DEBS": str(debs), "FIRST": names, "SSH_KEY": key.strip(),
             "KEYRING": str(keyring(layout))}  # fmt: skip
    checked(sandboxed(["sh", str(script)]), log=layout.cache / "site.log", env=os.environ | given)
    partial.rename(layer)
    return layer / "upper"


def keyring(layout: Layout) -> Path:
    """The public half of the key that signs the repository."""
    return layout.keys / "lab-archive-keyring.gpg"


def owner_suffix() -> str:
    """Unpacked trees belong to one user's range of ids: others cannot use them."""
    return "" if os.geteuid() == 0 else f"-{os.geteuid()}"


def discard(directory: Path) -> None:
    """Remove a half-made tree, whoever owns its files."""
    if directory.exists():
        checked(sandboxed(["rm", "-rf", "--one-file-system", str(directory)]))
    shutil.rmtree(directory, ignore_errors=True)
