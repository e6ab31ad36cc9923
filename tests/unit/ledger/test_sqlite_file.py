"""The SQLite file: made once on purpose, private, never replaced by an empty one without being noticed."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ledger_suite.migrations import differences
from ledger_suite.values import K, R, entry
from patching.errors import LedgerError, LedgerUnavailable
from patching.ledger import sqlite_file
from patching.ledger.schema import REVISION, VERSION_TABLE
from patching.ledger.store import SqlLedger, open_ledger


@pytest.fixture
def path(ledger: SqlLedger) -> Path:
    return Path(ledger._database.dialect.name)


def test_folder_is_made_and_every_file_is_private(tmp_path: Path) -> None:
    ledger = open_ledger(f"sqlite:///{tmp_path}/new/deep/led ger%20?.db".replace("?", ""))
    ledger.append(entry(K.GATE, "g"))
    files = list((tmp_path / "new" / "deep").iterdir())
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert len(files) >= 3


def test_database_is_durable_and_waits_for_other_writers(ledger: SqlLedger) -> None:
    ledger.append(entry(K.GATE, "g"))
    pooled, direct = _connections(ledger)
    for connection in (pooled, direct):
        told = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
        assert told == ["wal", 2]
    assert pooled.execute("PRAGMA busy_timeout").fetchone()[0] >= 10_000


def test_deleted_file_is_unavailable_and_no_new_one_appears(ledger: SqlLedger, path: Path) -> None:
    ledger.append(entry(K.GATE, "g1"))
    path.unlink()
    for attempt in (lambda: ledger.append(entry(K.GATE, "g2")), ledger.stopped, lambda: ledger.rollouts()):
        with pytest.raises(LedgerUnavailable, match="nothing new is launched"):
            attempt()
    assert not path.exists()


def test_file_deleted_within_a_transaction_is_not_reported_as_written(ledger: SqlLedger, path: Path) -> None:
    def write_while_it_is_deleted() -> None:
        with ledger._recording() as recorder:
            recorder.append(entry(K.GATE, "g1"))
            path.unlink()

    with pytest.raises(LedgerUnavailable, match="may be lost"):
        write_while_it_is_deleted()


@pytest.mark.parametrize("damage", ["deleted", "emptied"])
def test_lost_database_is_not_replaced_by_an_empty_one_at_the_next_start(ledger, path: Path, damage: str) -> None:
    """Every Airflow task opens the ledger anew: an empty one would forget all open rollouts."""
    ledger.append(entry(K.GATE, "g1"))
    ledger.close()
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(b"")
    with pytest.raises(LedgerUnavailable, match="forget every open rollout"):
        open_ledger(f"sqlite:///{path}")
    assert not path.exists() or path.stat().st_size == 0


def test_restored_backup_of_the_same_ledger_is_used_and_another_ledger_is_not(ledger, path, fresh, tmp_path) -> None:
    ledger.append(entry(K.GATE, "g1"))
    backup = tmp_path / "backup.db"
    with sqlite3.connect(path) as source, sqlite3.connect(backup) as copy:
        source.backup(copy)
    ledger.append(entry(K.GATE, "after-the-backup"))
    ledger._database.dialect.engine.dispose()
    backup.replace(path)
    for rest in ("-wal", "-shm"):
        Path(f"{path}{rest}").unlink(missing_ok=True)
    assert [item.key for item in ledger.entries(R)] == ["g1"]
    ledger.append(entry(K.GATE, "goes-on"))
    assert ledger.verify() == []

    other = open_ledger(f"sqlite:///{tmp_path}/other/ledger.db")
    other.close()
    ledger.close()
    shutil.copy(tmp_path / "other" / "ledger.db", tmp_path / "copy.db")
    (tmp_path / "copy.db").replace(path)
    with pytest.raises(LedgerUnavailable, match="another ledger"):
        ledger.append(entry(K.GATE, "g3"))


def test_file_that_is_no_database_is_unavailable_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("this is no database, but long enough to be looked at as one\n" * 50)
    with pytest.raises(LedgerUnavailable, match="not a database"):
        open_ledger(f"sqlite:///{tmp_path}/ledger.db")


def test_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerUnavailable, match="unavailable"):
        open_ledger(f"sqlite:///{tmp_path}/file/ledger.db")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("mysql://x/y", 'cannot live in "mysql"'),
        ("no url", "no database URL"),
    ],
)
def test_url_that_no_ledger_can_have_is_refused(url: str, said: str) -> None:
    with pytest.raises(LedgerError, match=said):
        open_ledger(url)


def test_missing_file_is_not_created_for_a_reader(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="nothing was created"):
        open_ledger(f"sqlite:///{tmp_path}/x/ledger.db", create=False)
    assert list(tmp_path.iterdir()) == []


def test_migrations_make_exactly_the_tables_that_the_code_uses(tmp_path: Path) -> None:
    assert differences(open_ledger(f"sqlite:///{tmp_path}/ledger.db")) == []


def test_revision_that_the_code_expects_is_the_last_migration() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    import patching.ledger

    config = Config()
    config.set_main_option("script_location", str(Path(patching.ledger.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_current_head() == REVISION


def test_ledger_of_a_newer_release_is_refused_and_not_touched(ledger: SqlLedger, path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")  # noqa: S608
    with pytest.raises(LedgerError, match="newer release"):
        open_ledger(f"sqlite:///{path}")


def test_opening_a_ledger_that_is_up_to_date_imports_no_alembic(path: Path) -> None:
    """Every Airflow task start pays for what is imported here."""
    program = (
        "import sys; from patching.ledger.store import open_ledger; open_ledger(sys.argv[1]).stopped(); "
        "sys.exit(any(name.split('.')[0] in ('alembic', 'airflow', 'pandas') for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program, f"sqlite:///{path}"], check=False, timeout=60)
    assert done.returncode == 0


def _open_and_write(url: str, name: str) -> None:
    ledger = open_ledger(url)
    for number in range(5):
        ledger.append(entry(K.GATE, f"{name}:{number}"))


def test_processes_that_open_a_new_ledger_at_once_make_one(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    spawn = multiprocessing.get_context("fork")
    children = [spawn.Process(target=_open_and_write, args=(url, f"p{number}")) for number in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * 4
    ledger = open_ledger(url)
    assert len(ledger.entries(R)) == 20
    assert ledger.verify() == []


def _connections(ledger: SqlLedger) -> tuple[sqlite3.Connection, sqlite3.Connection]:
    """Give the connection of ordinary transactions and that of the direct way."""
    dialect = ledger._database.dialect
    lent = dialect.engine.raw_connection()
    try:
        return lent.dbapi_connection, dialect._spare[-1]
    finally:
        lent.close()


def test_forked_child_does_not_write_on_its_parents_connection(ledger: SqlLedger) -> None:
    ledger.append(entry(K.GATE, "parent"))
    parents = _connections(ledger)
    child = os.fork()
    if child == 0:
        try:
            ledger.append(entry(K.GATE, "child"))
            os._exit(2 if set(_connections(ledger)) & set(parents) else 0)
        except BaseException:  # noqa: BLE001
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert _connections(ledger) == parents
    ledger.append(entry(K.GATE, "parent-again"))
    assert [item.key for item in ledger.entries(R)] == ["parent", "child", "parent-again"]


def test_lock_that_another_writer_keeps_is_unavailable_in_the_end_and_nothing_is_written(
    path: Path, ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_SECONDS", 0.01)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerUnavailable, match="locked"):
        ledger.append(entry(K.GATE, "g"))
    other.execute("ROLLBACK")
    other.close()
    assert ledger.append(entry(K.GATE, "g")).seq == 1
