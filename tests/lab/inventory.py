"""What the lab says about itself: one description, and inventories as Ansible has them."""

from __future__ import annotations

import json
from typing import Any

from lab.keys import client_key, known_hosts
from lab.layout import ROLE, SERVICE_PORT, SSH_USER, ZONES, Host, Layout


def host_variables(host: Host) -> dict[str, Any]:
    """Give the variables of one host."""
    where = {"ansible_host": host.loopback, "ansible_port": host.ssh_port, "ansible_user": SSH_USER}
    return where | host.labels | {"labels": host.labels}


def group_name(zone: str) -> str:
    """Give a zone's group: Ansible allows no dashes in the names of groups."""
    return zone.replace("-", "_")


def groups(hosts: list[Host]) -> dict[str, list[str]]:
    """List the hosts of each group."""
    members = {ROLE: [host.name for host in hosts]}
    for zone in ZONES:
        members[group_name(zone)] = [host.name for host in hosts if host.zone == zone]
    return members


def as_list(hosts: list[Host]) -> dict[str, Any]:
    """Give the inventory in the form of ``ansible-inventory --list``."""
    members = groups(hosts)
    variables = {host.name: host_variables(host) for host in hosts}
    tree: dict[str, Any] = {"_meta": {"hostvars": variables}, "all": {"children": ["ungrouped", *members]}}
    return tree | {name: {"hosts": names} for name, names in members.items()}


def as_yaml(hosts: list[Host]) -> dict[str, Any]:
    """Give the inventory in the form of Ansible's YAML plugin."""
    children: dict[str, Any] = {name: {"hosts": {host: {} for host in names}} for name, names in groups(hosts).items()}
    return {"all": {"hosts": {host.name: host_variables(host) for host in hosts}, "children": children}}


def description(layout: Layout, hosts: list[Host], kind: str) -> dict[str, Any]:
    """Give everything that somebody who uses the lab has to know."""
    return {
        "kind": kind,
        "directory": str(layout.directory),
        "octet": layout.octet,
        "ssh_user": SSH_USER,
        "ssh_key": str(client_key(layout)),
        "known_hosts": str(layout.path("known_hosts")),
        "ssh_config": str(layout.path("ssh_config")),
        "inventory": str(layout.path("inventory.json")),
        "inventory_yaml": str(layout.path("inventory.yaml")),
        "advisories": str(layout.path("advisories")),
        "prometheus_url": layout.prometheus_url,
        "repository_url": layout.repository_url,
        "hosts": [
            {
                "name": host.name,
                "zone": host.zone,
                "labels": host.labels,
                "address": host.loopback,
                "ssh_port": host.ssh_port,
                "service_url": f"http://{host.loopback}:{SERVICE_PORT}",
                "inside": host.address,
            }
            for host in hosts
        ],
    }


def ssh_config(layout: Layout, hosts: list[Host]) -> str:
    """Give a configuration for ssh, so that ``ssh -F ssh_config web-03`` works and checks the host's key."""
    blocks = [
        f"Host {host.name}\n  HostName {host.loopback}\n  Port {host.ssh_port}\n  HostKeyAlias {host.name}\n"
        for host in hosts
    ]
    common = (
        f"Host *\n  User {SSH_USER}\n  IdentityFile {client_key(layout)}\n  IdentitiesOnly yes\n  BatchMode yes\n"
        f"  UserKnownHostsFile {layout.path('known_hosts')}\n  GlobalKnownHostsFile /dev/null\n"
        "  StrictHostKeyChecking yes\n  ConnectTimeout 10\n"
    )
    return "\n".join([*blocks, common])


def write(layout: Layout, hosts: list[Host], kind: str) -> None:
    """Write it all into the lab's directory; lab.json last, for it says that the rest is there."""
    # Here, not above: the keeper starts without site-packages.
    import yaml

    layout.path("known_hosts").write_text(known_hosts(layout, hosts))
    layout.path("ssh_config").write_text(ssh_config(layout, hosts))
    layout.path("inventory.json").write_text(json.dumps(as_list(hosts), indent=2) + "\n")
    layout.path("inventory.yaml").write_text(yaml.safe_dump(as_yaml(hosts), sort_keys=False))
    layout.path("lab.json").write_text(json.dumps(description(layout, hosts, kind), indent=2) + "\n")
