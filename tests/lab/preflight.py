"""Tells why real hosts are not possible on this machine, one line a reason, with what mends it."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lab import cgroups
from lab.layout import DEFAULT_HOSTS, PROMETHEUS_PORT, SERVICE_PORT, LabError, Layout, fleet
from lab.process import checked, sandboxed

TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "prometheus": "prometheus",
    "apt-ftparchive": "apt-utils",
    "dpkg-deb": "dpkg",
    "gpg": "gnupg",
    "zstd": "zstd",
    "tar": "tar",
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
WATCHES_PER_HOST = 4
# tmpfs has user.* attributes since then, and overlays of users keep their notes in them.
NEEDS_KERNEL = (6, 6)
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Problem:
    """One reason why the lab cannot run here."""

    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.what}: {self.fix}"


def preflight(layout: Layout | None = None, hosts: int = DEFAULT_HOSTS) -> list[Problem]:
    """List what stands in the way of a lab of real hosts; an empty list means that it can come up."""
    layout = layout or Layout.default()
    return [
        *tool_problems(),
        *privilege_problems(),
        *cgroup_problems(),
        *address_problems(layout, hosts),
        *watch_problems(hosts),
    ]


def missing_packages() -> list[str]:
    """List the apt packages whose tools are not installed."""
    path = f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"
    missing = {package for tool, package in TOOLS.items() if shutil.which(tool, path=path) is None}
    if not KEYRING.exists():
        missing.add("debian-archive-keyring")
    if os.geteuid() != 0 and shutil.which("newuidmap") is None:
        missing.add("uidmap")
    return sorted(missing)


def tool_problems() -> list[Problem]:
    """Name the tools that are missing, as packages."""
    missing = missing_packages()
    return [Problem("tools are missing", f"apt-get install {' '.join(missing)}")] if missing else []


def privilege_problems() -> list[Problem]:
    """Tell whether this user may make namespaces at all."""
    if os.geteuid() == 0:
        tried = subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True, text=True, check=False)
        if tried.returncode:
            return [Problem(f"root may not make namespaces ({tried.stderr.strip()})", "run in a privileged container")]
        return []
    restricted = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    if restricted.exists() and restricted.read_text().strip() == "1":
        fix = "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0, or run as root"
        return [Problem("user namespaces are blocked by AppArmor", fix)]
    if not has_subordinate_ids():
        name = user_name()
        fix = f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}, or run as root"
        return [Problem("not root, and no subordinate user ids", fix)]
    tried = subprocess.run(sandboxed(["true"]), capture_output=True, text=True, check=False)
    if tried.returncode:
        fix = "allow user namespaces (sysctl kernel.unprivileged_userns_clone=1), or run as root"
        return [Problem(f"user namespaces do not work ({tried.stderr.strip()})", fix)]
    if tuple(map(int, os.uname().release.split(".")[:2])) < NEEDS_KERNEL:
        return [Problem("not root, and the kernel is older than 6.6", "run as root, or with a newer kernel")]
    return []


def has_subordinate_ids() -> bool:
    """Tell whether this user has ranges in /etc/subuid and /etc/subgid."""
    mine = (f"{user_name()}:", f"{os.geteuid()}:")
    files = (Path("/etc/subuid"), Path("/etc/subgid"))
    return all(file.exists() and any(line.startswith(mine) for line in file.read_text().splitlines()) for file in files)


def user_name() -> str:
    """Name this user, or give its number when it has no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def cgroup_problems() -> list[Problem]:
    """Tell whether a host's systemd can have control groups."""
    root = cgroups.mounted()
    if root is None:
        return [Problem("no cgroup2 file system", "mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")]
    if not os.access(root, os.W_OK) and os.geteuid() == 0:
        return [Problem(f"{root} is read-only", "run the container with --privileged")]
    if cgroups.delegation() is None:
        fix = "run it in a session of a systemd user manager (loginctl enable-linger, then log in anew), or as root"
        return [Problem("not root, and no control group was delegated to this user", fix)]
    return []


def address_problems(layout: Layout, hosts: int) -> list[Problem]:
    """Tell which loopback addresses are taken; the lab that is up in this very directory does not count."""
    if layout.path("control.sock").exists():
        return []
    wanted = [(host.loopback, SERVICE_PORT) for host in fleet(hosts, layout.octet, 22)]
    for address in [(layout.gateway, PROMETHEUS_PORT), *wanted]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                where = f"{address[0]}:{address[1]} is taken ({error.strerror})"
                return [Problem(where, "take the other lab down, or set PATCHING_LAB_OCTET=78")]
    return []


def watch_problems(hosts: int) -> list[Problem]:
    """Tell whether the kernel lets this user watch enough files for the hosts' systemd: its default is low."""
    limit = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    used = 0
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            used += str(link.readlink()) == "anon_inode:inotify" and link.parent.parent.stat().st_uid == os.geteuid()
    needed = hosts * WATCHES_PER_HOST
    if used + needed <= limit:
        return []
    fix = f"sysctl fs.inotify.max_user_instances={max(1024, 2 * (used + needed))}, or take another lab down"
    return [Problem(f"{hosts} hosts need {needed} inotify instances, and {used} of {limit} are used", fix)]


def simulated_problems(layout: Layout, hosts: int) -> list[Problem]:
    """List what stands in the way even of simulated hosts."""
    problems = address_problems(layout, hosts)
    if importlib.util.find_spec("asyncssh") is None:
        problems.append(Problem("asyncssh is missing", "pip install asyncssh, or use the project's environment"))
    if shutil.which("ssh-keygen") is None:
        problems.append(Problem("ssh-keygen is missing", "install openssh-client"))
    return problems


def install_tools() -> list[str]:
    """Install what is missing, as root on Debian; gives the packages it installed.

    Raises:
        LabError: when this is not root, there is no apt-get, or it fails.
    """
    missing = missing_packages()
    if not missing:
        return []
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise LabError(f"tools are missing: as root, apt-get install {' '.join(missing)}")
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    checked(["apt-get", "-qq", "update"], env=quiet)
    checked(["apt-get", "-qq", "-y", "--no-install-recommends", "install", *missing], env=quiet)
    return missing
