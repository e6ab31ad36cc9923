"""The undo archive: one more apt source, asked apart from the host's own sources, for versions that left the index."""

from __future__ import annotations

from collections.abc import Mapping
from shlex import quote

from patching.channels.remote_job import STATE_DIR
from patching.drivers.apt_options import AptOptions
from patching.drivers.apt_shell import call
from patching.drivers.apt_text import bare

_HOME = f"{STATE_DIR}/archive"
# A snapshot's Release file is as old as the snapshot, so its date says nothing.
_SETTINGS = " ".join(
    f"-o {key}={value}"
    for key, value in {
        "Dir::Etc::SourceList": f"{_HOME}/sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": f"{_HOME}/lists",
        "Dir::Cache::pkgcache": '""',
        "Dir::Cache::srcpkgcache": '""',
        "Acquire::Check-Valid-Until": "false",
        "APT::Sandbox::User": "root",
    }.items()
)


def open_archive(options: AptOptions) -> str:
    """Write the source and refresh its index, once; signatures are checked as for any other source."""
    return f"""
mkdir -p {_HOME}/lists/partial
printf '%s\\n' {quote(options.undo.archive or "")} > {_HOME}/sources.list
apt-get update -q {_SETTINGS} -o APT::Update::Error-Mode=any > /dev/null 2>&1
"""


def ask_archive(options: AptOptions, old: Mapping[str, str]) -> str:
    """Ask which of the old versions the archive has; prints ``component=version archive`` lines."""
    lines = [call("archived", component, version) for component, version in old.items()]
    names = " ".join(quote(bare(component)) for component in old)
    return f"""
{open_archive(options)}
rows=$(apt-cache {_SETTINGS} madison {names} 2>/dev/null | tr -d ' ')
archived() {{
  case "
$rows" in *"
${{1%%:*}}|$2|"*) echo "$1=$2 archive" ;; esac
}}
{chr(10).join(lines)}
"""


def fetch_archived() -> str:
    """Write a shell function that downloads one version from the archive into the current directory."""
    return f"""
from_archive() {{ apt-get -q {_SETTINGS} download "$1=$2"; }}
"""
