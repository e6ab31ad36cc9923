"""Inventories → targets (S1, I1): Ansible's two forms, the plain form, and every way in which a file is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from textwrap import dedent

import pytest

from patching.errors import ConnectionMissing, InventoryError
from patching.sources.base import Connection
from patching.sources.inventory_file import InventoryFile, resolve_inventory
from patching.target import Target

ANSIBLE = """
all:
  vars: {env: dev, tier: none}
  hosts:
    lone.example: {}
  children:
    prod:
      vars: {env: prod}
      children:
        web:
          vars: {tier: front}
          hosts:
            web-[01:03].example: {az: az-a}
            web-02.example: {az: az-b, ansible_host: 10.0.0.2, ansible_port: 2222, ansible_user: admin}
        db:
          hosts:
            db-a: {tier: data, critical: yes}
            db-b:
    canary:
      hosts: {web-01.example: {}}
"""


def read(folder: Path, text: str, name: str = "fleet.yaml") -> dict[str, Target]:
    (folder / name).write_text(dedent(text))
    return {target.name: target for target in InventoryFile(folder / name).targets()}


def test_ansible_yaml_merges_variables_from_the_outermost_group_to_the_host(tmp_path: Path) -> None:
    found = read(tmp_path, ANSIBLE)
    assert list(found) == ["lone.example", "web-01.example", "web-02.example", "web-03.example", "db-a", "db-b"]
    assert found["lone.example"].labels == {"env": "dev", "tier": "none"}
    assert found["web-01.example"].labels == {
        "env": "prod", "tier": "front", "az": "az-a",
        "group:canary": "true", "group:prod": "true", "group:web": "true",
    }  # fmt: skip
    assert found["db-a"].labels["critical"] == "yes"
    assert (found["db-a"].labels["tier"], found["db-a"].labels["env"]) == ("data", "prod")
    member = found["web-02.example"].members[0]
    assert (member.address, member.port, member.user) == ("10.0.0.2", 2222, "admin")
    assert found["web-02.example"].labels["az"] == "az-b"
    assert found["web-03.example"].address == "web-03.example"


@pytest.mark.skipif(
    shutil.which("ansible-inventory") is None, reason="ansible is not installed: nothing to compare with"
)
def test_ansible_itself_gives_the_same_targets(tmp_path: Path) -> None:
    ours = read(tmp_path, ANSIBLE)
    command = ["ansible-inventory", "-i", str(tmp_path / "fleet.yaml"), "--list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    theirs = read(tmp_path, listed, "listed.json")
    assert {name: (t.address, t.labels["env"]) for name, t in theirs.items()} == {
        name: (t.address, t.labels["env"]) for name, t in ours.items()
    }


def test_listed_json_gives_labels_groups_and_addresses(tmp_path: Path) -> None:
    document = {
        "_meta": {"hostvars": {
            "web-1": {"ansible_host": "10.0.0.1", "az": "az-a", "labels": {"az": "az-b", "role": "web"}, "spare": True},
            "only-here": {"ansible_port": 23},
        }},
        "all": {"children": ["ungrouped", "prod"]},
        "ungrouped": {"hosts": ["only-here"]},
        "prod": {"children": ["web"]},
        "web": {"hosts": ["web-1", "no-vars"]},
    }  # fmt: skip
    found = read(tmp_path, json.dumps(document), "fleet.json")
    assert found["web-1"].labels == {
        "az": "az-b", "role": "web", "spare": "true", "group:prod": "true", "group:web": "true",
    }  # fmt: skip
    assert found["no-vars"].address == "no-vars"
    assert found["only-here"].labels == {}
    assert found["only-here"].members[0].port == 23


def test_labels_are_the_text_that_was_written(tmp_path: Path) -> None:
    """YAML 1.1 would make false, 8, 1.1 and 81000 of them."""
    text = "targets: [{name: a, labels: {country: no, rack: 010, release: 1.10, at: 22:30:00, live: true, none: ~}}]"
    labels = {"country": "no", "rack": "010", "release": "1.10", "at": "22:30:00", "live": "true"}
    with pytest.raises(InventoryError, match="labels"):
        read(tmp_path, text)
    assert read(tmp_path, text.replace(", none: ~", ""))["a"].labels == labels


def test_what_looks_like_a_secret_never_becomes_a_label(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """
        all:
          hosts:
            web-1:
              db_password: hunter2
              ansible_become_pass: hunter2
              api-token: hunter2
              deploy_key: hunter2
              url: postgres://app:hunter2@db/app
              sealed: !vault |
                $ANSIBLE_VAULT;1.1;AES256
                6162
              tokenizer: none
              role: web
        """,
    )
    assert found["web-1"].labels == {"role": "web", "tokenizer": "none"}
    assert "hunter2" not in repr(found["web-1"])


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("web[1:3]", ["web1", "web2", "web3"]),
        ("web[08:10].eu", ["web08.eu", "web09.eu", "web10.eu"]),
        ("db-[a:c]", ["db-a", "db-b", "db-c"]),
        ("n[0:6:3]", ["n0", "n3", "n6"]),
        ("r[1:2]-n[1:2]", ["r1-n1", "r1-n2", "r2-n1", "r2-n2"]),
    ],
)
def test_ranges_of_hosts(tmp_path: Path, pattern: str, names: list[str]) -> None:
    assert list(read(tmp_path, f"all: {{hosts: {{'{pattern}': {{}}}}}}")) == names


REFUSED = [
    ("fleet.yaml", "", "the inventory is empty; write `targets:`"),
    ("fleet.yaml", "just text", "an inventory is a mapping"),
    ("fleet.yaml", "all:\n  hosts:\n    web-1: {}\n    web-1: {}\n", r'yaml:4:5: .*duplicate key "web-1"; first at'),
    ("fleet.yaml", "all: {hosts: [web-1]}", r'"all" must be hosts: a mapping of names, not list'),
    ("fleet.yaml", "all:\n  host: {web-1: {}}\n", 'group "all" has "host"; allowed: hosts, children, vars'),
    ("fleet.yaml", "all: {hosts: {'web[3:1]': {}}}", "stands for no host"),
    ("fleet.yaml", "all: {hosts: {'web[a:9]': {}}}", r"a range that cannot be read; write \[01:12\]"),
    ("fleet.yaml", "all: {hosts: {'w[1:999][1:999]': {}}}", "at most 200000 are read"),
    ("fleet.yaml", "all: {hosts: {web-1: {ansible_port: ssh}}}", '"ssh" is no port'),
    ("fleet.yaml", "all: {hosts: {web-1: {ansible_host: '{{ ip }}'}}}", "templates are not evaluated here"),
    ("fleet.yaml", "all: {hosts: {web-1: {ansible_host: -oProxyCommand=x}}}", "is no address"),
    ("fleet.yaml", "all: {hosts: {web-1: !custom x}}", '"!custom" is not known here'),
    ("fleet.yaml", "targets:\n- name: a\n- address: 10.0.0.1\n", r"fleet\.yaml:3: the target has no name; write"),
    ("fleet.yaml", "targets:\n- name: a\n- name: a\n", r'fleet\.yaml:3: target "a" is there twice'),
    ("fleet.yaml", "targets:\n- {name: a, adress: 10.0.0.1}\n", 'unknown key "adress"; did you mean "address"'),
    ("fleet.yaml", "targets: [{name: 'a b'}]", '"a b" is no name of a target'),
    ("fleet.yaml", "targets: [a: {", r"fleet\.yaml:\d:\d+: this inventory is not YAML"),
    ("fleet.json", "{", r"fleet\.json:1:2: this inventory is not JSON"),
    ("fleet.json", '{"a": {"children": ["b"]}, "b": {"children": ["a"], "hosts": ["h"]}}', "contains itself"),
    ("fleet.json", '{"_meta": {"hostvars": {}}, "web": {"hosts": {"h": {}}}}', 'group "web": hosts is a list of names'),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "message"), REFUSED, ids=[message[:40] for _, _, message in REFUSED])
def test_broken_inventory_is_refused_with_its_place_and_what_to_write(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InventoryError, match=message) as caught:
        InventoryFile(tmp_path / name).targets()
    assert str(tmp_path / name) in str(caught.value)


class Connections:
    """Connections as a dictionary."""

    def __init__(self, **extra: dict[str, str]) -> None:
        self.extra = extra

    def get(self, connection_id: str) -> Connection:
        if connection_id not in self.extra:
            raise ConnectionMissing(f'connection "{connection_id}" does not exist')
        return Connection(id=connection_id, extra=self.extra[connection_id])


def test_inventory_is_a_file_with_or_without_suffix_else_a_connection_with_a_path(tmp_path: Path) -> None:
    (tmp_path / "web.yaml").write_text("targets: [{name: a}]")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "cmdb.json").write_text('[{"name": "b"}]')
    connections = Connections(cmdb={"path": str(elsewhere / "cmdb.json")}, bare={})
    for name, target in (("web", "a"), ("web.yaml", "a"), ("cmdb", "b")):
        assert [item.name for item in resolve_inventory(name, tmp_path, connections).targets()] == [target]
    with pytest.raises(InventoryError, match=r'connection "bare" names no inventory: give its extra a "path"'):
        resolve_inventory("bare", tmp_path, connections)


def test_unknown_inventory_lists_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "web.yaml").write_text("targets: [{name: a}]")
    (tmp_path / "storage.json").write_text("[]")
    with pytest.raises(InventoryError, match=r'unknown inventory "webb": .*; did you mean "web"\?'):
        resolve_inventory("webb", tmp_path, Connections())
    with pytest.raises(InventoryError, match=r'"zzz".*allowed: "storage", "web"'):
        resolve_inventory("zzz", tmp_path, None)


def test_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "inventories"
    folder.mkdir()
    (tmp_path / "outside.yaml").write_text("targets: [{name: a}]")
    with pytest.raises(InventoryError, match="unknown inventory"):
        resolve_inventory("../outside.yaml", folder, None)
