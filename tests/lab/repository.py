"""The lab's signed apt repository: one suite as it was released, one for security, and nothing superseded in either."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab import advisories, packages
from lab.layout import Layout
from lab.process import checked, only_one, sandboxed

SUITES = {"lab": "Lab", "lab-security": "Lab-Security"}


def signing_home(layout: Layout) -> Path:
    """Make the repository's signing key once; gives the GnuPG directory that holds it.

    Raises:
        LabError: when gpg fails.
    """
    home = layout.keys / "gnupg"
    public = layout.keys / "lab-archive-keyring.gpg"
    if public.exists():
        return home
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True, mode=0o700)
    gpg(home, "--passphrase", "", "--quick-gen-key", "Lab archive <archive@lab.invalid>", "ed25519", "sign", "never")
    partial = public.with_suffix(".partial")
    gpg(home, "--yes", "--output", str(partial), "--export")
    partial.rename(public)
    return home


def gpg(home: Path, *arguments: str) -> str:
    """Run gpg so that the agent it starts ends with it; one at a time, because labs share the key and its agent."""
    with only_one(home.with_suffix(".lock")):
        return checked(sandboxed(["gpg", "--homedir", str(home), "--batch", "--quiet", *arguments]))


class Repository:
    """What hosts can install now."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.root = layout.path("repository")
        self.state = self.root / "published.json"

    def published(self) -> dict[str, str]:
        """Tell which version of each source package is in an index: never more than one."""
        try:
            return dict(json.loads(self.state.read_text()))
        except FileNotFoundError:
            return {}

    def publish(self, what: str) -> dict[str, str]:
        """Put one release (v2) or one package beside the shop (shop-conf) in its index; the version before leaves it.

        Raises:
            LabError: when there is no such release, or a tool fails.
        """
        published = self.published()
        if what in packages.EXTRAS:
            published[what] = packages.EXTRAS[what][1]
        else:
            published[packages.SOURCE_PACKAGE] = packages.release(what).version
        return self.replace(published)

    def withdraw(self, what: str = packages.SOURCE_PACKAGE) -> dict[str, str]:
        """Take a source package out of every index."""
        return self.replace({name: version for name, version in self.published().items() if name != what})

    def replace(self, published: dict[str, str]) -> dict[str, str]:
        """Make the indexes hold exactly these versions, at once for everybody who reads them."""
        with only_one(self.layout.directory / "repository.lock"), self.generation() as www:
            for suite, label in SUITES.items():
                self.write_suite(www, suite, label, published)
            self.state.write_text(json.dumps(published))
        advisories.write(self.layout.path("advisories"), published)
        return published

    @contextmanager
    def generation(self) -> Iterator[Path]:
        """Give a new tree to fill, then switch the readers over to it."""
        self.root.mkdir(parents=True, exist_ok=True)
        current = self.root / "www"
        before = current.readlink() if current.is_symlink() else None
        fresh = self.root / f"www-{int(str(before).rpartition('-')[2]) + 1 if before else 1}"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        yield fresh
        link = self.root / "www.partial"
        link.unlink(missing_ok=True)
        link.symlink_to(fresh.name)
        link.rename(current)
        if before:
            shutil.rmtree(self.root / before, ignore_errors=True)

    def write_suite(self, www: Path, suite: str, label: str, published: dict[str, str]) -> None:
        """Write the pool, the index and the signature of one suite."""
        pool = www / "pool" / suite
        lists = www / "dists" / suite
        index = lists / "main" / "binary-amd64"
        pool.mkdir(parents=True)
        index.mkdir(parents=True)
        debs = packages.build(self.layout.cache)
        for binary in self.contents(suite, published):
            shutil.copy(debs / binary.filename, pool)
        text = checked(["apt-ftparchive", "packages", f"pool/{suite}"], cwd=www)
        (index / "Packages").write_text(text)
        (index / "Packages.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
        shutil.copytree(index, lists / "main" / "binary-arm64")
        fields = {"Origin": "Lab", "Label": label, "Suite": suite, "Codename": suite, "Components": "main",
                  "Architectures": "amd64 arm64 all"}  # fmt: skip
        options = [f"-oAPT::FTPArchive::Release::{key}={value}" for key, value in fields.items()]
        release = lists / "Release"
        release.write_text(checked(["apt-ftparchive", *options, "release", str(lists)], env=os.environ | {"TZ": "UTC"}))
        home = signing_home(self.layout)
        gpg(home, "--clearsign", "-o", str(lists / "InRelease"), str(release))

    def contents(self, suite: str, published: dict[str, str]) -> list[packages.Binary]:
        """List the packages that belong in a suite."""
        found: list[packages.Binary] = []
        for name, version in published.items():
            if name in packages.EXTRAS:
                if packages.EXTRAS[name][2] == suite:
                    found.append(packages.beside(name, version))
            elif suite == "lab-security":
                found += packages.binaries(packages.release(version))
        return found
