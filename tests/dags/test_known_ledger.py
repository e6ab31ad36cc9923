"""The ledger as a whole vanishes or is replaced (S4): Airflow knows which one is its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Variable

from patching.errors import LedgerUnavailable
from patching.ledger.store import open_ledger
from patching_airflow import known_ledger
from patching_airflow.known_ledger import VARIABLE, open_known_ledger


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configured ledger in a folder, and an Airflow whose Variables live in the environment."""
    monkeypatch.setattr(known_ledger, "configured_ledger_url", lambda: f"sqlite:///{tmp_path}/state/ledger.db")

    def keep(key: str, value: Any, description: str | None = None, serialize_json: bool = False) -> None:
        monkeypatch.setenv(f"AIRFLOW_VAR_{key.upper()}", value)

    monkeypatch.delenv(f"AIRFLOW_VAR_{VARIABLE.upper()}", raising=False)
    monkeypatch.setattr(Variable, "set", keep)
    monkeypatch.setattr(Variable, "get", lambda key, default: _from_environment(key, default))
    return tmp_path / "state"


def _from_environment(key: str, default: Any) -> Any:
    import os

    return os.environ.get(f"AIRFLOW_VAR_{key.upper()}", default)


def test_first_task_makes_the_ledger_and_later_ones_find_the_same(folder: Path) -> None:
    first = open_known_ledger()
    assert open_known_ledger().ledger_id == first.ledger_id


def test_ledger_whose_whole_folder_vanished_is_not_made_anew(folder: Path) -> None:
    open_known_ledger()
    shutil.rmtree(folder)
    with pytest.raises(LedgerUnavailable, match="nothing was created and nothing new is launched"):
        open_known_ledger()
    assert not folder.exists()


def test_ledger_that_is_mounted_again_is_taken_up(folder: Path) -> None:
    first = open_known_ledger()
    folder.rename(folder.with_name("unmounted"))
    with pytest.raises(LedgerUnavailable):
        open_known_ledger()
    folder.with_name("unmounted").rename(folder)
    assert open_known_ledger().ledger_id == first.ledger_id


def test_another_ledger_in_its_place_launches_nothing(folder: Path) -> None:
    first = open_known_ledger()
    shutil.rmtree(folder)
    other = open_ledger(f"sqlite:///{folder}/ledger.db")
    with pytest.raises(LedgerUnavailable, match=f"{other.ledger_id}, but this Airflow works with {first.ledger_id}"):
        open_known_ledger()
