"""The contract of both databases, on a PostgreSQL server that these tests start, and what only a server can do."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import sqlalchemy as sa

pytest.register_assert_rewrite("ledger_suite")
from ledger_suite.contract_heartbeat import HeartbeatContract  # noqa: E402
from ledger_suite.contract_leases import LeaseContract  # noqa: E402
from ledger_suite.contract_verifying import VerifyingContract  # noqa: E402
from ledger_suite.contract_writing import WritingContract  # noqa: E402
from ledger_suite.migrations import differences  # noqa: E402
from ledger_suite.tampering import read_raw, run_raw  # noqa: E402
from ledger_suite.values import K, R, SetClock, entry  # noqa: E402
from patching.errors import LedgerError, LedgerUnavailable  # noqa: E402
from patching.ledger import schema  # noqa: E402
from patching.ledger.entry import NewEntry  # noqa: E402
from patching.ledger.store import SqlLedger, open_ledger  # noqa: E402
from servers.postgres import PostgresServer, postgres_server  # noqa: E402

pytestmark = pytest.mark.postgres

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as running:
        yield running


@pytest.fixture(scope="module")
def migrated(server: PostgresServer) -> str:
    """Name of a database with a ledger's tables, to be copied: migrating takes longer than most tests."""
    url = server.fresh()
    open_ledger(url).close()
    return str(sa.make_url(url).database)


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def fresh(server: PostgresServer, migrated: str, clock: SetClock) -> Iterator[Callable[[], SqlLedger]]:
    made: list[SqlLedger] = []

    def make() -> SqlLedger:
        made.append(open_ledger(server.fresh(migrated), clock=clock))
        return made[-1]

    yield make
    for ledger in made:
        ledger.close()


@pytest.fixture
def ledger(fresh: Callable[[], SqlLedger]) -> SqlLedger:
    return fresh()


@pytest.fixture
def raw(ledger: SqlLedger) -> Callable[..., None]:
    return functools.partial(run_raw, ledger)


@pytest.fixture
def raw_rows(ledger: SqlLedger) -> Callable[..., object]:
    return functools.partial(read_raw, ledger)


class TestWriting(WritingContract):
    pass


class TestLeases(LeaseContract):
    pass


class TestHeartbeats(HeartbeatContract):
    pass


class TestVerifying(VerifyingContract):
    pass


def test_migrations_make_exactly_the_tables_that_the_code_uses(ledger: SqlLedger) -> None:
    assert differences(ledger) == []


def test_truncate_is_refused(ledger: SqlLedger, raw: Callable[..., None]) -> None:
    ledger.append(entry(K.GATE, "g"))
    with pytest.raises(sa.exc.DBAPIError, match="append-only"):
        raw("TRUNCATE entry", guarded=True)


def test_moment_of_an_entry_is_read_when_its_lock_is_held_not_when_it_began_to_wait(server: PostgresServer) -> None:
    url = server.fresh()
    ledger, engine = open_ledger(url), sa.create_engine(url)
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = :name"
    with ThreadPoolExecutor(1) as pool, engine.connect() as holder:
        holder.execute(sa.select(schema.ledger_meta).with_for_update())
        written = pool.submit(ledger.append, entry(K.GATE, "g"))
        while not server.ask(waiting, name=str(engine.url.database)):
            assert not written.done()
        held_until = holder.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        holder.commit()
        assert written.result().at >= held_until
    engine.dispose()
    ledger.close()


def test_server_that_goes_in_mid_work_is_unavailable_and_work_goes_on_when_it_is_back(server: PostgresServer) -> None:
    ledger = open_ledger(server.fresh())
    first = ledger.append(entry(K.GATE, "g1"))
    server.stop()
    try:
        for attempt in (lambda: ledger.append(entry(K.GATE, "g2")), ledger.stopped, ledger.now):
            with pytest.raises(LedgerUnavailable, match="nothing new is launched"):
                attempt()
        with pytest.raises(LedgerUnavailable):
            open_ledger(server.url("postgres"))
    finally:
        server.start()
    assert ledger.append(entry(K.GATE, "g1")) == first
    ledger.append(entry(K.GATE, "g2"))
    assert ledger.verify() == []
    ledger.close()


def test_role_that_may_only_add_to_the_record_appends_directly_and_cannot_change_what_is_written(
    server: PostgresServer, migrated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rights that docs/explanation/ledger.md gives to workers."""
    url = server.fresh(migrated)
    name = str(sa.make_url(url).database)
    server.ask("CREATE ROLE worker LOGIN")
    server.ask("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO worker", name)
    server.ask("REVOKE UPDATE, DELETE ON entry, document FROM worker", name)
    own = sa.make_url(url).set(username="worker").render_as_string(hide_password=False)
    ledger, engine = open_ledger(own), sa.create_engine(own)
    ledger.append_all([entry(K.GATE, "g1")])
    monkeypatch.setattr(ledger, "group", None)
    assert ledger.append(entry(K.GATE, "g2")).seq == 2
    with pytest.raises(sa.exc.ProgrammingError, match="permission denied"), engine.begin() as connection:
        connection.exec_driver_sql("UPDATE entry SET body = '{}'")
    engine.dispose()
    ledger.close()


Write = Callable[[SqlLedger, NewEntry], object]
ways = pytest.mark.parametrize(
    "write",
    [lambda ledger, item: ledger.append(item), lambda ledger, item: ledger.append_all([item])],
    ids=["directly", "among others"],
)


@contextmanager
def no_writing_in_the_background(server: PostgresServer) -> Iterator[None]:
    """Nothing reaches the disk unless somebody waits for it."""
    (writer,) = server.processes("walwriter")
    os.kill(writer, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(writer, signal.SIGCONT)


@ways
def test_entry_outlives_a_crash_of_the_server_as_soon_as_its_append_has_returned(
    server: PostgresServer, migrated: str, write: Write
) -> None:
    ledger = open_ledger(server.fresh(migrated))
    with no_writing_in_the_background(server):
        write(ledger, entry(K.GATE, "g1"))
        server.lose_memory()
    assert [item.key for item in ledger.entries(R)] == ["g1"]
    assert ledger.verify() == []
    ledger.close()


@pytest.mark.parametrize(
    "tell", [lambda ledger: ledger.append(entry(K.GATE, "g1")), lambda ledger: ledger.heads()], ids=["append", "heads"]
)
def test_what_somebody_else_wrote_outlives_a_crash_as_soon_as_it_was_told(
    server: PostgresServer, migrated: str, tell: Callable[[SqlLedger], object]
) -> None:
    """Whoever is told that something is written may rely on it, though whoever wrote it still waits for the disk."""
    url = server.fresh(migrated)
    ledger, engine = open_ledger(url), sa.create_engine(url)
    ledger.append(entry(K.GATE, "g1"))
    with no_writing_in_the_background(server):
        with engine.begin() as unsynced:
            unsynced.exec_driver_sql("SET LOCAL synchronous_commit = off")
            unsynced.exec_driver_sql("INSERT INTO document VALUES ('d', 'snapshots', '{}', 'now')")
        tell(ledger)
        server.lose_memory()
    engine.dispose()
    with ledger._database.reading() as connection:
        assert connection.execute(sa.select(schema.document.c.digest)).scalars().all() == ["d"]
    ledger.close()


@ways
def test_append_waits_for_replicas_as_the_server_is_set_and_keeps_nobody_waiting_meanwhile(
    server: PostgresServer, migrated: str, write: Write
) -> None:
    url = server.fresh(migrated)
    ledger, engine = open_ledger(url), sa.create_engine(url)
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND datname = :name"
    enough = Event()

    def keep_writing() -> None:
        numbers = itertools.count()
        while not enough.is_set():
            write(ledger, entry(K.GATE, f"g{next(numbers)}"))

    server.ask("ALTER SYSTEM SET synchronous_standby_names = 'absent'")
    server.ask("SELECT pg_reload_conf()")
    with ThreadPoolExecutor(1) as pool:
        try:
            written = pool.submit(keep_writing)
            while not server.ask(waiting, name=str(engine.url.database)):
                assert not written.done()
            with engine.connect() as other:
                other.execute(sa.select(schema.ledger_meta).with_for_update(nowait=True))
        finally:
            enough.set()
            server.ask("ALTER SYSTEM RESET synchronous_standby_names")
            server.ask("SELECT pg_reload_conf()")
        written.result()
    assert ledger.verify() == []
    engine.dispose()
    ledger.close()


@pytest.mark.slow
def test_server_that_crashes_under_writers_loses_nothing_confirmed(server: PostgresServer, migrated: str) -> None:
    url = server.fresh(migrated)
    names = ("a", "b", "c")
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    command = [sys.executable, str(TESTS / "unit/ledger/appending_worker.py"), url]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True, "env": environment}
    workers = [subprocess.Popen([*command, name], **pipes) for name in names]
    confirmed = [worker.stdout.readline().strip() for worker in workers for _ in range(20) if worker.stdout]
    server.lose_memory()
    for worker in workers:
        confirmed += [key for key in worker.communicate(timeout=30)[0].split("\n")[:-1] if key]
    ledger = open_ledger(url)
    written = {item.key for item in ledger.entries(R)}
    assert [key for key in confirmed if key not in written] == []
    assert ledger.verify() == []
    assert len(ledger.leases()) == len(names)
    ledger.close()


def test_connection_that_is_cut_within_a_transaction_writes_nothing(server: PostgresServer) -> None:
    url = server.fresh()
    ledger = open_ledger(url)
    killer = sa.create_engine(url, isolation_level="AUTOCOMMIT")

    def cut() -> None:
        with killer.connect() as connection:
            connection.execute(
                sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
            )

    def write_and_be_cut() -> None:
        with ledger._recording() as recorder:
            recorder.append(entry(K.GATE, "g1"))
            cut()

    with pytest.raises(LedgerUnavailable):
        write_and_be_cut()
    assert ledger.entries("web-1") == []
    assert ledger.append(entry(K.GATE, "g1")).seq == 1
    killer.dispose()
    ledger.close()


def test_database_that_was_made_anew_under_a_running_process_is_not_written_to(server: PostgresServer) -> None:
    url = server.fresh()
    ledger = open_ledger(url)
    ledger.append(entry(K.GATE, "g1"))
    with sa.create_engine(url).begin() as connection:
        connection.execute(sa.text("UPDATE ledger_meta SET ledger_id = 'another'"))
    with pytest.raises(LedgerUnavailable, match="another ledger"):
        ledger.append(entry(K.GATE, "g2"))
    with pytest.raises(LedgerUnavailable, match="another ledger"):
        ledger.stopped()
    ledger.close()


def test_lost_tables_are_unavailable_not_a_crash(server: PostgresServer) -> None:
    url = server.fresh()
    ledger = open_ledger(url)
    with sa.create_engine(url).begin() as connection:
        connection.execute(sa.text("DROP TABLE ledger_meta"))
    with pytest.raises(LedgerUnavailable):
        ledger.append(entry(K.GATE, "g"))
    ledger.close()


def test_empty_database_is_refused_where_no_ledger_may_be_made(server: PostgresServer) -> None:
    with pytest.raises(LedgerUnavailable, match="holds no ledger"):
        open_ledger(server.fresh(), create=False)


def test_clock_is_the_servers_and_the_password_stays_out_of_messages(server: PostgresServer) -> None:
    url = server.fresh().replace("patching@", "patching:hunter2@")
    ledger = open_ledger(url)
    with sa.create_engine(url).connect() as connection:
        before, after = (connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one() for _ in range(2))
        assert before <= after
        assert before <= ledger.now()
    with pytest.raises(LedgerError) as refused:
        open_ledger(url.replace("ledger", "missing"))
    assert "hunter2" not in str(refused.value)
    ledger.close()
