"""The one program behind all stand-ins: ``commands.py NAME arguments…``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lab.layout import LabError
from lab.simhost import apt, dpkg, system

COMMANDS = {
    "apt-get": apt.apt_get,
    "apt": apt.apt_get,
    "apt-cache": apt.apt_cache,
    "apt-mark": apt.apt_mark,
    "apt-config": apt.apt_config,
    "dpkg": dpkg.dpkg,
    "dpkg-query": dpkg.dpkg_query,
    "dpkg-deb": dpkg.dpkg_deb,
    "sudo": system.sudo,
    "runuser": system.runuser,
    "systemctl": system.systemctl,
    "needrestart": system.needrestart,
    "reboot": lambda _: system.power("reset"),
    "poweroff": lambda _: system.power("off"),
    "shutdown": system.shutdown,
    "hostname": system.hostname,
    "df": system.df,
}

if __name__ == "__main__":
    try:
        sys.exit(COMMANDS[sys.argv[1]](sys.argv[2:]))
    except LabError as error:
        sys.exit(f"{sys.argv[1]}: {error}")
