"""Kernels: a new ABI is a new package, and the running one is compared with the newest installed of its flavour."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cmp_to_key

from patching.drivers.apt_text import bare
from patching.target import Component
from patching.version_order import compare

_IMAGE = re.compile(r"^linux-image-(\d\S*?)-([a-z][a-z0-9-]*?)(-unsigned)?$")
_RELEASE = re.compile(r"^(\d\S*?)-([a-z][a-z0-9-]*)$")
_BUILD = re.compile(r"Debian (\S+)")


def is_kernel(component: str) -> bool:
    """Whether a component is a kernel image or the metapackage that brings one."""
    return bare(component).startswith("linux-image-")


def _newest(versions: Iterable[str]) -> str:
    return max(versions, key=cmp_to_key(lambda a, b: compare("Debian", a, b)))


def kernel_reasons(running: str, build: str, installed: Mapping[str, Component]) -> list[str]:
    """Say why the running kernel (``uname -r``, ``uname -v``) is not the newest installed one of its flavour.

    Without a kernel package (containers) there is nothing to compare, and the answer is no reason.
    """
    release = _RELEASE.match(running)
    if release is None:
        return []
    images: dict[str, str] = {}
    for component, found in installed.items():
        image = _IMAGE.match(bare(component))
        if image and image[2] == release[2]:
            images[image[1]] = found.version
    if not images:
        return []
    newest = _newest(images)
    if newest != release[1]:
        return [f"kernel {running} runs, {newest}-{release[2]} is installed"]
    built = _BUILD.search(build)
    if built and built[1] != images[newest]:
        return [f"kernel {running} runs as built in {built[1]}, {images[newest]} is installed"]
    return []
