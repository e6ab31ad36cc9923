"""Words and pieces of shell that the apt scripts share: checked names, store files, apt's own options."""

from __future__ import annotations

import re
from shlex import quote

from patching.channels.remote_job import STATE_DIR
from patching.drivers.apt_options import AptOptions

STORE = f"{STATE_DIR}/store"
CACHE = "/var/cache/apt/archives"
CLOSURE_CHANGED = 43
VERSION_GONE = 44
STORE_DAMAGED = 45
INTERRUPTED = 46
_COMPONENT = re.compile(r"^[a-z0-9][a-z0-9+.-]*:[a-z0-9-]+$")
_VERSION = re.compile(r"^[A-Za-z0-9.+~:-]+$")

ENVIRONMENT = """\
set -u -f
umask 022
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive DEBIAN_PRIORITY=critical
export NEEDRESTART_MODE=l APT_LISTCHANGES_FRONTEND=none UCF_FORCE_CONFFOLD=1
exec < /dev/null
"""


def checked(component: str, version: str) -> tuple[str, str]:
    """Give back a component and version that are what Debian allows; raises ValueError for anything else."""
    if not _COMPONENT.fullmatch(component):
        raise ValueError(f"{component!r} is no component: write name:arch")
    if not _VERSION.fullmatch(version):
        raise ValueError(f"{version!r} is no Debian version")
    return component, version


def deb_name(component: str, version: str) -> str:
    """Name of the .deb file, as apt itself names it: an epoch's colon is written %3a."""
    name, _, architecture = checked(component, version)[0].partition(":")
    return f"{name}_{version.replace(':', '%3a')}_{architecture}.deb"


def store_path(component: str, version: str) -> str:
    """Where our own copy of a version is kept on the host."""
    return f"{STORE}/{deb_name(component, version)}"


def call(function: str, component: str, version: str) -> str:
    """Write a call of a shell function with component, version and file name."""
    words = (*checked(component, version), deb_name(component, version))
    return f"{function} {' '.join(quote(word) for word in words)}"


def apt_get(options: AptOptions) -> str:
    """Write apt-get with everything that keeps it from asking, waiting for ever or doing more than it is told."""
    settings = {
        "DPkg::Lock::Timeout": str(round(options.lock_timeout)),
        "Dpkg::Use-Pty": "0",
        "APT::Get::Always-Include-Phased-Updates": "true",
        "APT::Get::AutomaticRemove": "false",
        "APT::Sandbox::User": "root",
    }
    kept = "-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold"
    return "apt-get -q -y " + " ".join(f"-o {key}={value}" for key, value in settings.items()) + " " + kept


# What a simulation would do, one change a line: "Inst name:arch=version", "Remv name".
CHANGES = r"""
changes() {
  sed -n -e 's/^Inst \([^: ]*\)[^ ]* \(\[[^]]*\] \)\{0,1\}(\([^ ]*\).* \[\([^]]*\)\]).*$/Inst \1:\4=\3/p' \
    -e 's/^Remv \([^: ]*\)[^ ]* .*$/Remv \1/p'
}
"""

# dpkg writes here while it works: what is left says that it was interrupted.
REPAIR = """
interrupted() { [ -n "$(ls -A /var/lib/dpkg/updates 2>/dev/null)" ]; }
"""

# A kept file is used only while it still has the hash that was recorded when it was fetched.
VERIFIED = """
verified() { (cd "$store" && [ -f "$1" ] && [ -f "$1.sha256" ] && sha256sum --status -c "$1.sha256"); }
"""
