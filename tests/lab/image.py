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
    # The layer above belongs to this very build: its package database is a copy of this one's.
    '--customize-hook=cat /proc/sys/kernel/random/uuid > "$1/etc/lab-base"',
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
    for leftover in (partial, *layout.cache.glob("mmdebstrap.*")):
        discard(leftover)
    layout.cache.mkdir(parents=True, exist_ok=True)
    log = layout.cache / "base.log"
    if not archive.exists():
        build(layout, archive, log)
    partial.mkdir()
    checked(sandboxed(["tar", "--zstd", "-xf", str(archive), "-C", str(partial), "--exclude=./dev/*"]), log=log)
    partial.rename(root)
    return root


def build(layout: Layout, archive: Path, log: Path) -> None:
    """Build the base as an archive, which is what a build machine keeps between its runs."""
    fresh = archive.with_name(f".{archive.name}")
    words = [
        "mmdebstrap",
        *OPTIONS,
        f"--include={','.join(INCLUDE)}",
        SUITE,
        str(fresh),
        f"deb {mirror()} {SUITE} main",
    ]
    # Without root mmdebstrap makes its own user namespace, and knows how to do without device nodes.
    root = os.geteuid() == 0
    argv = sandboxed([words[0], "--mode=root", *words[1:]]) if root else [words[0], "--mode=unshare", *words[1:]]
    checked(argv, log=log, env=os.environ | {"TMPDIR": str(layout.cache) if root else "/tmp"})  # noqa: S108
    fresh.rename(archive)


def site(layout: Layout, below: Path) -> Path:
    """Make the layer with the lab's user, keys, sources and the shop's first release; gives its directory.

    Raises:
        LabError: when the script in it fails.
    """
    debs = packages.build(layout.cache)
    repository.signing_home(layout)
    key = client_key(layout).with_suffix(".pub").read_text()
    script = SOURCE / "site.sh"
    inputs = (
        (below / "etc" / "lab-base").read_text(),
        packages.digest(),
        key,
        script.read_text(),
        keyring(layout).read_bytes(),
    )
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
