"""The Debian packages of the lab's shop: six releases of one source, and two packages beside it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template

from lab.layout import SOURCE, LabError
from lab.process import checked

SOURCE_PACKAGE = "shopfront"
BAD_DIGITS = (2, 5, 8)
SLOW_DIGITS = (3, 7)


@dataclass(frozen=True)
class Release:
    """One version of the shop's source package, and what is special about it."""

    name: str
    version: str
    tells: str
    failing: tuple[int, ...] = ()
    slow: tuple[int, ...] = ()
    wants_reboot: bool = False
    postinst_fails: bool = False
    with_tls: bool = True


@dataclass(frozen=True)
class Binary:
    """One .deb: its control fields, files, and maintainer script."""

    package: str
    version: str
    source: str
    depends: str
    tells: str
    files: dict[str, str]
    postinst: str = ""
    prerm: str = ""
    conffiles: tuple[str, ...] = ()

    @property
    def filename(self) -> str:
        """The name in the pool."""
        return f"{self.package}_{self.version}_all.deb"


RELEASES = {
    release.name: release
    for release in (
        Release("v1", "1.0.0-1", "the first release", with_tls=False),
        Release("v2", "1.0.0-1+deb12u1", "good; needs a package that v1 did not"),
        Release("v3", "1.0.0-1+deb12u2", "bad: installs cleanly, then three answers of ten are errors", BAD_DIGITS),
        Release("v4", "1.0.0-1+deb12u3", "good; wants a reboot", wants_reboot=True),
        Release("v5", "1.0.0-1+deb12u4", "its postinst fails", postinst_fails=True),
        Release("v6", "1.0.0-1+deb12u5", "bad: two answers of ten are slow, the median is as before", slow=SLOW_DIGITS),
    )
}
# Beside the shop: (package, first version, next version, suite of the next version).
EXTRAS = {
    "shop-conf": ("1.0-1", "1.0-1+deb12u1", "lab-security"),
    "shop-tools": ("1.0-1", "1.1-1", "lab"),
}
SERVICE_POSTINST = Template("""#!/bin/sh
set -e
[ "$$1" = configure ] || exit 0
$first
systemctl enable shopfront.service >/dev/null 2>&1 || true
if [ -d /run/systemd/system ]; then systemctl daemon-reload; systemctl restart shopfront.service; fi
""")
SERVICE_PRERM = """#!/bin/sh
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then systemctl stop shopfront.service; fi
"""
REBOOT = "touch /var/run/reboot-required; echo shopfront >> /var/run/reboot-required.pkgs"
FAIL = "echo 'shopfront: cannot migrate the catalogue' >&2; exit 7"


def release(name: str) -> Release:
    """Find a release by its name (v2) or its version.

    Raises:
        LabError: when there is none, with the ones there are.
    """
    for known in RELEASES.values():
        if name in (known.name, known.version):
            return known
    raise LabError(f"no release {name!r}: give one of {', '.join(RELEASES)}")


def binaries(of: Release) -> Iterator[Binary]:
    """Give the binary packages of one release of the shop."""
    library = (SOURCE / "shop" / "libshop.py.in").read_text().replace("@VERSION@", of.version)
    failing, slow = ("".join(f"{digit}, " for digit in digits) for digits in (of.failing, of.slow))
    exactly = f"(= {of.version})"
    yield Binary(
        "libshop", of.version, SOURCE_PACKAGE, "python3", of.tells,
        {"/usr/lib/python3/dist-packages/libshop.py": library.replace("@FAILING@", failing).replace("@SLOW@", slow)},
    )  # fmt: skip
    if of.with_tls:
        yield Binary(
            "shop-tls", of.version, SOURCE_PACKAGE, "python3", of.tells,
            {"/usr/lib/shopfront/tls.ciphers": "TLS_AES_256_GCM_SHA384\n"},
        )  # fmt: skip
    first = FAIL if of.postinst_fails else REBOOT if of.wants_reboot else ""
    yield Binary(
        "shopfront", of.version, SOURCE_PACKAGE,
        f"python3, libshop {exactly}" + (f", shop-tls {exactly}" if of.with_tls else ""), of.tells,
        {
            "/usr/lib/shopfront/shopfront.py": (SOURCE / "shop" / "shopfront.py").read_text(),
            "/usr/lib/shopfront/counters.py": (SOURCE / "shop" / "counters.py").read_text(),
            "/lib/systemd/system/shopfront.service": (SOURCE / "shop" / "shopfront.service").read_text(),
        },
        SERVICE_POSTINST.substitute(first=first), SERVICE_PRERM,
    )  # fmt: skip


def beside(package: str, version: str) -> Binary:
    """Give one of the packages beside the shop; shop-conf has a conffile that changes with its version."""
    if package == "shop-conf":
        text = f"# shop-conf {version}\nlisten = 8000\nworkers = {2 if version == EXTRAS[package][0] else 4}\n"
        where = "/etc/shopfront/shop.conf"
        return Binary(package, version, package, "", "the shop's settings", {where: text}, conffiles=(where,))
    files = {f"/usr/share/{package}/version": f"{version}\n"}
    return Binary(package, version, package, "", "not a security fix", files)


def everything() -> list[Binary]:
    """List every package that the lab knows."""
    shop = [binary for of in RELEASES.values() for binary in binaries(of)]
    return shop + [beside(name, version) for name, (*versions, _) in EXTRAS.items() for version in versions]


def installed_first() -> list[Binary]:
    """List what is installed in every host when it is new."""
    return [*binaries(RELEASES["v1"]), *(beside(name, versions[0]) for name, versions in EXTRAS.items())]


def digest() -> str:
    """Tell one set of packages from another."""
    return hashlib.sha256(repr(everything()).encode()).hexdigest()[:16]


def build(cache: Path) -> Path:
    """Build all packages, or find them built; gives the directory that holds them.

    Raises:
        LabError: when dpkg-deb fails.
    """
    pool = cache / f"debs-{digest()}"
    if pool.is_dir():
        return pool
    partial = pool.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    # Here, not above: the simulated hosts only want to know what packages there are.
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as workers:
        list(workers.map(lambda binary: build_one(binary, partial), everything()))
    partial.rename(pool)
    return pool


def build_one(binary: Binary, pool: Path) -> None:
    """Lay out one package and build it."""
    tree = pool / f".{binary.package}_{binary.version}"
    for name, text in binary.files.items():
        file = tree / name.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    control = tree / "DEBIAN"
    control.mkdir()
    fields = {
        "Package": binary.package, "Version": binary.version, "Architecture": "all", "Section": "net",
        "Source": binary.source, "Priority": "optional", "Maintainer": "Lab <lab@lab.invalid>",
        "Depends": binary.depends, "Description": binary.tells,
    }  # fmt: skip
    if fields["Source"] == binary.package:
        del fields["Source"]
    (control / "control").write_text("".join(f"{key}: {value}\n" for key, value in fields.items() if value))
    for script, text in (("postinst", binary.postinst), ("prerm", binary.prerm)):
        if text:
            (control / script).write_text(text)
            (control / script).chmod(0o755)
    if binary.conffiles:
        (control / "conffiles").write_text("".join(f"{name}\n" for name in binary.conffiles))
    checked(["dpkg-deb", "-Zgzip", "--root-owner-group", "-b", str(tree), str(pool / binary.filename)])
    shutil.rmtree(tree)
