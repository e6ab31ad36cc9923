"""ansible-playbook in a virtual environment of its own, made once, over the same fleet: read, upgrade, read, compare.

Tuned as its own guide says: pipelining, persistent connections, no facts, as many forks as the window. ``raw`` keeps
Python off the hosts, so that what is compared is the controller alone; modules would cost it more.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bench.fleet.contest import Took, timed
from bench.fleet.place import Place

PLAYBOOK = """\
- hosts: all
  gather_facts: false
  strategy: {strategy}
{serial}  tasks:
    - raw: cat /srv/host.json
    - raw: /srv/upgrade shop 1.1
    - raw: cat /srv/host.json
      register: after
      failed_when: (after.stdout | from_json).installed.shop != "1.1"
"""
CONFIG = """\
[defaults]
inventory = {folder}/inventory.ini
forks = {window}
host_key_checking = true
stdout_callback = minimal
[ssh_connection]
pipelining = true
control_path_dir = {folder}/cp
ssh_args = -F /dev/null -o ControlMaster=auto -o ControlPersist=60s -o UserKnownHostsFile={folder}/known_hosts
"""


def home() -> Path:
    """Give the virtual environment; made at the first use, from the package index that pip is set up for."""
    place = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "patching-bench" / "ansible"
    if not (place / "bin/ansible-playbook").exists():
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        subprocess.run([str(place / "bin/pip"), "install", "-q", "ansible-core"], check=True)
    return place


def version() -> str:
    """Give what was measured."""
    said = subprocess.run([str(home() / "bin/ansible"), "--version"], capture_output=True, text=True, check=True)
    return said.stdout.split("]")[0].replace("[", "")


def playbook(place: Place, window: int, strategy: str) -> Took:
    """Run the playbook over the fleet: ``linear`` in batches of the window, or ``free`` without batches."""
    serial = f"  serial: {window}\n" if strategy == "linear" else ""
    (place.folder / "play.yml").write_text(PLAYBOOK.format(strategy=strategy, serial=serial))
    (place.folder / "ansible.cfg").write_text(CONFIG.format(folder=place.folder, window=window))
    lines = [
        f"{host['name']} ansible_host={host['address']} ansible_port={place.port} ansible_user=patch "
        f"ansible_ssh_private_key_file={place.folder}/client"
        for host in place.document["hosts"]
    ]
    (place.folder / "inventory.ini").write_text("\n".join(["[all]", *lines, ""]))
    command = [str(home() / "bin/ansible-playbook"), "play.yml"]
    more = {"ANSIBLE_CONFIG": str(place.folder / "ansible.cfg"), "PYTHONPATH": "", "ANSIBLE_HOME": str(place.folder)}
    took = timed(command, where=place.folder, more=more, facts=False)
    seen = place.renew()
    if seen["versions"] != {"1.1": len(place.names)}:
        raise SystemExit(f"ansible did not upgrade every host: {seen}")
    return took
