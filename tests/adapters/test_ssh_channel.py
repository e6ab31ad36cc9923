"""Channel ssh against a real OpenSSH server (S4, F1, F8): steps run once, whatever happens to the connection."""

# ruff: noqa: ASYNC110, ASYNC221, ASYNC240 -- short blocking calls of a test disturb nobody

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from shlex import quote
from uuid import uuid4

import pytest

from adapters.openssh import ADDRESS, OpenSsh, keygen
from patching.change import IfInterrupted, Phase, Step, StepKind
from patching.channels.base import Attach
from patching.channels.ssh import SshChannel, SshSession
from patching.errors import HostKeyChanged, HostKeyUnknown, LoginRefused, TargetOffline
from patching.sources.base import Connection
from patching.target import Member, Target

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="a test sshd that lets root in needs root"),
    pytest.mark.skipif(shutil.which("sshd", path="/usr/sbin:/usr/bin") is None, reason="openssh-server is missing"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSsh]:
    sshd = OpenSsh(tmp_path_factory.mktemp("sshd"))
    sshd.start()
    yield sshd
    sshd.stop()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "patching"


@pytest.fixture
def channel(server: OpenSsh, state: Path) -> SshChannel:
    return SshChannel(server.connection(), state_dir=str(state), output_cap=64 * 1024)


@pytest.fixture
async def session(server: OpenSsh, channel: SshChannel) -> AsyncIterator[SshSession]:
    opened = await channel.open(server.target())
    assert isinstance(opened, SshSession)
    yield opened
    await opened.close()


def act(script: str, deadline: float = 30.0, **more: object) -> Step:
    call = {"script": script, "sudo": True}
    return Step.model_validate(
        {"name": "act", "phase": Phase.APPLY, "kind": StepKind.ACT, "call": call, "deadline": deadline, **more}
    )


def new_id() -> str:
    return uuid4().hex


def markers(state: Path, step_id: str) -> int:
    """How often a payload really began."""
    if not (state / "markers.log").exists():
        return 0
    return [line.split()[0] for line in (state / "markers.log").read_text().splitlines()].count(step_id)


def recorded(state: Path, step_id: str, name: str, key: str) -> str:
    lines = (state / "steps" / step_id / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)[key]


async def until(condition: Callable[[], bool], limit: float = 10.0) -> None:
    """Wait for a trace on the host; a limit, no fixed pause."""
    async with asyncio.timeout(limit):
        while not condition():
            await asyncio.sleep(0.01)


def fifo(tmp_path: Path) -> tuple[str, Path]:
    """A payload that runs until the test writes to a pipe, so that no test depends on time."""
    gate = tmp_path / f"gate-{new_id()}"
    os.mkfifo(gate)
    return f"read word < {quote(str(gate))}; echo got $word", gate


async def release(gate: Path, word: str = "go") -> None:
    await asyncio.to_thread(gate.write_text, word + "\n")


async def test_a_step_ends_with_its_exit_code_and_output(session: SshSession) -> None:
    step = act("echo out; echo err >&2; exit 3")
    progress = await session.wait(await session.start(new_id(), step), step)
    assert progress.attach is Attach.ENDED
    assert progress.reply is not None
    assert (progress.reply.exit_code, progress.reply.stdout, progress.reply.stderr) == (3, "out\n", "err\n")
    assert progress.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


async def test_a_reading_step_gives_stdout_stderr_and_exit_code(session: SshSession) -> None:
    read = act("cat; echo a; echo b >&2; exit 4").model_copy(update={"kind": StepKind.READ})
    reply = await session.read(read)
    assert (reply.exit_code, reply.stdout, reply.stderr) == (4, "a\n", "b\n")


async def test_a_reading_step_over_its_deadline_is_ended(session: SshSession) -> None:
    reply = await session.read(act("sleep 60", deadline=1.0))
    assert reply.exit_code == 124


async def test_a_reply_over_the_cap_is_cut_and_says_so(server: OpenSsh, state: Path) -> None:
    channel = SshChannel(server.connection(), state_dir=str(state), read_cap=1000)
    session = await channel.open(server.target())
    reply = await session.read(act("head -c 200000 /dev/zero | tr '\\0' x"))
    await session.close()
    assert reply.truncated
    assert len(reply.stdout) == 1000


async def test_an_unheard_of_step_is_absent(session: SshSession) -> None:
    progress = await session.look(new_id(), act("true"))
    assert (progress.attach, progress.reply) == (Attach.ABSENT, None)


async def test_two_starts_at_once_run_the_payload_once(
    server: OpenSsh, channel: SshChannel, state: Path, tmp_path: Path
) -> None:
    """F8, T9: whoever asks and however often, one step id runs once."""
    script, gate = fifo(tmp_path)
    step, step_id = act(script), new_id()
    sessions = [await channel.open(server.target()) for _ in range(4)]
    handles = await asyncio.gather(*(each.start(step_id, step) for each in sessions))
    assert len({handle.boot_id for handle in handles}) == 1
    waits = [asyncio.create_task(each.wait(handle, step)) for each, handle in zip(sessions, handles, strict=True)]
    await release(gate)
    ends = await asyncio.gather(*waits)
    assert [end.reply.stdout for end in ends if end.reply] == ["got go\n"] * 4
    assert markers(state, step_id) == 1
    again = await sessions[0].start(step_id, step)
    assert (await sessions[0].wait(again, step)).attach is Attach.ENDED
    assert markers(state, step_id) == 1
    for each in sessions:
        await each.close()


async def test_a_connection_cut_in_mid_step_loses_nothing(
    server: OpenSsh, session: SshSession, state: Path, tmp_path: Path
) -> None:
    """F1: the step goes on, and the wait attaches to it again."""
    script, gate = fifo(tmp_path)
    step, step_id = act(script), new_id()
    handle = await session.start(step_id, step)
    waiting = asyncio.create_task(session.wait(handle, step))
    await until(lambda: markers(state, step_id) == 1)
    assert server.cut_sessions() >= 1
    assert (await session.look(step_id, step)).attach is Attach.RUNNING
    await release(gate)
    progress = await waiting
    assert progress.reply is not None
    assert progress.reply.stdout == "got go\n"
    assert markers(state, step_id) == 1


async def test_a_server_restarted_in_mid_step_loses_nothing(state: Path, tmp_path: Path) -> None:
    sshd = OpenSsh(tmp_path / "own")
    sshd.start()
    channel = SshChannel(sshd.connection(), state_dir=str(state))
    session = await channel.open(sshd.target())
    script, gate = fifo(tmp_path)
    step, step_id = act(script), new_id()
    handle = await session.start(step_id, step)
    waiting = asyncio.create_task(session.wait(handle, step))
    await until(lambda: markers(state, step_id) == 1)
    sshd.cut_sessions()
    sshd.stop()
    await release(gate)
    await until(lambda: (state / "steps" / step_id / "exit").exists())
    sshd.start()
    progress = await waiting
    assert progress.reply is not None
    assert progress.reply.exit_code == 0
    assert markers(state, step_id) == 1
    await session.close()
    sshd.stop()


async def test_a_target_that_does_not_come_back_within_the_deadline_is_offline(state: Path, tmp_path: Path) -> None:
    sshd = OpenSsh(tmp_path / "own")
    sshd.start()
    session = await SshChannel(sshd.connection(), state_dir=str(state)).open(sshd.target())
    script, gate = fifo(tmp_path)
    step = act(script, deadline=2.0)
    handle = await session.start(new_id(), step)
    sshd.cut_sessions()
    sshd.stop()
    with pytest.raises(TargetOffline):
        await session.wait(handle, step)
    await release(gate)


async def test_a_step_over_its_deadline_is_running_and_can_be_cancelled(session: SshSession, state: Path) -> None:
    step, step_id = act("sleep 300", deadline=1.0), new_id()
    handle = await session.start(step_id, step)
    progress = await session.wait(handle, step)
    assert (progress.attach, progress.reply) == (Attach.RUNNING, None)
    await session.cancel(handle)
    after = await session.look(step_id, step)
    assert after.reply is not None
    assert after.reply.exit_code == 128 + signal.SIGTERM


@pytest.mark.parametrize("reading", [False, True])
async def test_wait_and_reading_that_are_cancelled_end_at_once_and_the_connection_goes_on(
    server: OpenSsh, session: SshSession, tmp_path: Path, *, reading: bool
) -> None:
    """OpenSSH closes the channel of a program only when that has ended: whoever waits for it aborts nothing."""
    script, gate = fifo(tmp_path)
    step, log = act(f"touch {quote(str(gate))}.begun; {script}", deadline=120.0), server.directory / "sshd.log"
    logins = log.read_text().count("Accepted publickey")
    handle = None if reading else await session.start(new_id(), step)
    work = session.read(step) if handle is None else session.wait(handle, step)
    running = asyncio.create_task(work)
    await until(Path(f"{gate}.begun").exists)
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=20.0)
    assert done
    assert running.cancelled()
    if handle is not None:
        await session.cancel(handle)
        assert (await session.look(handle.step_id, step)).attach is Attach.ENDED
    else:
        assert (await session.read(act("echo still here"))).stdout == "still here\n"
        await release(gate)
    assert log.read_text().count("Accepted publickey") == logins


async def test_cancel_kills_a_payload_that_ignores_term(session: SshSession, state: Path) -> None:
    from patching.channels.remote_job import JobPaths, cancel_program

    step, step_id = act("trap '' TERM; while :; do sleep 1; done"), new_id()
    await session.start(step_id, step)
    await until(lambda: markers(state, step_id) == 1)
    subprocess.run(["sh"], input=cancel_program(JobPaths(step_id, str(state)), grace=1.0), text=True, check=True)
    after = await session.look(step_id, step)
    assert after.reply is not None
    assert after.reply.exit_code == 128 + signal.SIGKILL


async def test_a_daemon_of_the_payload_keeps_neither_lock_nor_wait(session: SshSession, state: Path) -> None:
    """A maintainer script may start a daemon with everything it inherited."""
    step, step_id = act("echo first; sleep 300 & echo $!"), new_id()
    progress = await session.wait(await session.start(step_id, step), step)
    assert progress.reply is not None
    first, daemon = progress.reply.stdout.split()
    try:
        assert first == "first"
        assert Path(f"/proc/{daemon}").exists()
        held = [str(fd.readlink()) for fd in Path(f"/proc/{daemon}/fd").iterdir()]
        assert not [path for path in held if path.endswith("lock")]
        assert (await session.look(step_id, step)).attach is Attach.ENDED
    finally:
        os.kill(int(daemon), signal.SIGKILL)


async def test_a_killed_payload_has_its_signal_as_exit_code(session: SshSession, state: Path) -> None:
    step, step_id = act("kill -9 $$"), new_id()
    progress = await session.wait(await session.start(step_id, step), step)
    assert progress.reply is not None
    assert progress.reply.exit_code == 128 + signal.SIGKILL


async def test_runner_and_payload_killed_is_lost_never_success(session: SshSession, state: Path) -> None:
    step, step_id = act("sleep 300"), new_id()
    handle = await session.start(step_id, step)
    await until(lambda: markers(state, step_id) == 1)
    os.kill(int(recorded(state, step_id, "runner", "pid")), signal.SIGKILL)
    os.killpg(int(recorded(state, step_id, "started", "pid")), signal.SIGKILL)
    progress = await session.wait(handle, step)
    assert (progress.attach, progress.reply) == (Attach.LOST, None)
    await session.start(step_id, step)
    assert markers(state, step_id) == 1


async def test_a_payload_that_outlives_its_runner_is_waited_for_and_then_lost(
    session: SshSession, state: Path, tmp_path: Path
) -> None:
    script, gate = fifo(tmp_path)
    step, step_id = act(script), new_id()
    handle = await session.start(step_id, step)
    await until(lambda: markers(state, step_id) == 1)
    os.kill(int(recorded(state, step_id, "runner", "pid")), signal.SIGKILL)
    assert (await session.look(step_id, step)).attach is Attach.RUNNING
    waiting = asyncio.create_task(session.wait(handle, step))
    await release(gate)
    assert (await waiting).attach is Attach.LOST


async def test_another_boot_id_means_rebooted_or_absent(session: SshSession, state: Path) -> None:
    step, step_id = act("sleep 300", if_interrupted=IfInterrupted.SUCCESS, expects_reboot=True), new_id()
    handle = await session.start(step_id, step)
    directory = state / "steps" / step_id
    await until(lambda: markers(state, step_id) == 1)
    os.kill(int(recorded(state, step_id, "runner", "pid")), signal.SIGKILL)
    os.killpg(int(recorded(state, step_id, "started", "pid")), signal.SIGKILL)
    (directory / "boot").write_text("00000000-0000-0000-0000-000000000000\n")
    assert (await session.wait(handle, step)).attach is Attach.REBOOTED
    (directory / "started").unlink()
    assert (await session.look(step_id, step)).attach is Attach.ABSENT


async def test_a_runner_that_died_before_the_payload_began_is_absent_and_starts_once(
    session: SshSession, state: Path
) -> None:
    """The moment between preparing a step and starting it."""
    step, step_id = act("echo once"), new_id()
    first = new_id()
    await session.wait(await session.start(first, step), step)
    shutil.copytree(state / "steps" / first, state / "steps" / step_id, ignore=shutil.ignore_patterns("*.pipe"))
    for name in ("exit", "started", "runner"):
        (state / "steps" / step_id / name).unlink()
    run = state / "steps" / step_id / "run"
    run.write_text(run.read_text().replace(first, step_id))
    assert (await session.look(step_id, step)).attach is Attach.ABSENT
    progress = await session.wait(await session.start(step_id, step), step)
    assert progress.reply is not None
    assert progress.reply.stdout == "once\n"
    assert markers(state, step_id) == 1


async def test_a_forbidden_step_is_never_started_however_often_it_is_asked_for(
    session: SshSession, state: Path
) -> None:
    """F8: the zombie that wakes up after its step was given up finds the tombstone, and does nothing."""
    step, step_id = act("echo ran"), new_id()
    assert (await session.forbid(step_id, step)).attach is Attach.FORBIDDEN
    for _ in range(2):
        progress = await session.wait(await session.start(step_id, step), step)
        assert (progress.attach, progress.reply) == (Attach.FORBIDDEN, None)
    assert (await session.forbid(step_id, step)).attach is Attach.FORBIDDEN
    assert (await session.look(step_id, step)).attach is Attach.FORBIDDEN
    assert markers(state, step_id) == 0


async def test_forbidding_comes_too_late_for_a_step_that_runs_or_ended(
    session: SshSession, state: Path, tmp_path: Path
) -> None:
    """F8: the zombie was faster, so what it did is settled and not given up."""
    script, gate = fifo(tmp_path)
    step, step_id = act(script), new_id()
    handle = await session.start(step_id, step)
    assert (await session.forbid(step_id, step)).attach is Attach.RUNNING
    await release(gate)
    assert (await session.wait(handle, step)).attach is Attach.ENDED
    assert (await session.forbid(step_id, step)).attach is Attach.ENDED
    assert markers(state, step_id) == 1


async def test_a_prepared_step_whose_runner_died_can_be_forbidden(
    session: SshSession, state: Path, tmp_path: Path
) -> None:
    script, gate = fifo(tmp_path)
    first, second = new_id(), new_id()
    handle = await session.start(first, act(script))
    await until(lambda: markers(state, first) == 1)
    waiting = await session.start(second, act("true"))
    await until(lambda: (state / "steps" / second / "runner").exists())
    assert (await session.forbid(second, act("true"))).attach is Attach.RUNNING
    await session.cancel(waiting)
    assert (await session.forbid(second, act("true"))).attach is Attach.FORBIDDEN
    await release(gate)
    assert (await session.wait(handle, act(script))).attach is Attach.ENDED
    assert (await session.wait(await session.start(second, act("true")), act("true"))).attach is Attach.FORBIDDEN
    assert markers(state, second) == 0


async def test_a_start_and_a_tombstone_at_once_agree_on_who_was_first(
    server: OpenSsh, channel: SshChannel, state: Path
) -> None:
    """F8: the step's directory is the arbiter: it ran once and nobody gave it up, or the other way round."""
    sessions = [await channel.open(server.target()) for _ in range(4)]
    step = act("true")
    for _ in range(6):
        step_id = new_id()
        answers = await asyncio.gather(
            sessions[0].start(step_id, step), sessions[1].forbid(step_id, step),
            sessions[2].start(step_id, step), sessions[3].forbid(step_id, step),
        )  # fmt: skip
        end = (await sessions[0].wait(answers[0], step)).attach
        assert end in (Attach.ENDED, Attach.FORBIDDEN)
        assert markers(state, step_id) == (end is Attach.ENDED)
        for given_up in (answers[1], answers[3]):
            assert (given_up.attach is Attach.FORBIDDEN) == (end is Attach.FORBIDDEN)
    for each in sessions:
        await each.close()


async def test_one_acting_step_at_a_time_on_a_host(session: SshSession, state: Path, tmp_path: Path) -> None:
    script, gate = fifo(tmp_path)
    first, second = new_id(), new_id()
    slow, quick = act(script), act("true")
    slow_handle = await session.start(first, slow)
    await until(lambda: markers(state, first) == 1)
    quick_handle = await session.start(second, quick)
    await until(lambda: (state / "steps" / second / "runner").exists())
    assert (await session.look(second, quick)).attach is Attach.RUNNING
    assert not (state / "steps" / second / "started").exists()
    await release(gate)
    for handle, step in ((slow_handle, slow), (quick_handle, quick)):
        assert (await session.wait(handle, step)).attach is Attach.ENDED


async def test_a_step_cancelled_while_it_waits_for_its_turn_never_runs(
    session: SshSession, state: Path, tmp_path: Path
) -> None:
    script, gate = fifo(tmp_path)
    first, second = new_id(), new_id()
    handle = await session.start(first, act(script))
    await until(lambda: markers(state, first) == 1)
    waiting = await session.start(second, act("true"))
    await until(lambda: (state / "steps" / second / "runner").exists())
    await session.cancel(waiting)
    assert (await session.look(second, act("true"))).attach is Attach.ABSENT
    await release(gate)
    assert (await session.wait(handle, act(script))).attach is Attach.ENDED
    assert markers(state, second) == 0


async def test_output_over_the_cap_is_cut_on_the_host_and_says_so(session: SshSession, state: Path) -> None:
    step, step_id = act("head -c 3000000 /dev/zero | tr '\\0' x; echo end >&2"), new_id()
    progress = await session.wait(await session.start(step_id, step), step)
    assert progress.reply is not None
    assert progress.reply.ok
    assert progress.reply.truncated
    assert progress.reply.stderr == "end\n"
    assert (state / "steps" / step_id / "out").stat().st_size == 64 * 1024


async def test_a_step_that_does_not_ask_for_root_runs_as_the_login_user(session: SshSession, state: Path) -> None:
    from patching.channels.remote_job import JobPaths, start_program

    step_id = new_id()
    program = start_program(JobPaths(step_id, str(state)), "id -un; pwd", run_as="nobody")
    subprocess.run(["sh"], input=program, text=True, check=True, capture_output=True)
    step = act("id -un; pwd")
    progress = await session.wait(await session.start(step_id, step), step)
    assert progress.reply is not None
    assert (progress.reply.exit_code, progress.reply.stdout) == (0, "nobody\n/\n"), progress.reply.stderr


async def test_an_unknown_host_key_names_fingerprint_and_command(server: OpenSsh, state: Path, tmp_path: Path) -> None:
    empty = tmp_path / "known_hosts"
    channel = SshChannel(server.connection(known_hosts_file=str(empty)), state_dir=str(state))
    with pytest.raises(HostKeyUnknown) as refused:
        await channel.open(server.target())
    shown = subprocess.run(["ssh-keygen", "-lf", f"{server.directory}/host.pub"], capture_output=True, text=True)
    assert shown.stdout.split()[1] in str(refused.value)
    command = str(refused.value).partition("accept it with: ")[2]
    subprocess.run(["sh", "-c", command], check=True, capture_output=True)
    await (await channel.open(server.target())).close()


async def test_a_changed_host_key_names_both_fingerprints(server: OpenSsh, state: Path, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"[{ADDRESS}]:{server.port} {keygen(tmp_path / 'other', 'ecdsa')}\n")
    channel = SshChannel(server.connection(known_hosts_file=str(known)), state_dir=str(state))
    with pytest.raises(HostKeyChanged) as refused:
        await channel.open(server.target())
    for public in (server.directory / "host.pub", tmp_path / "other.pub"):
        shown = subprocess.run(["ssh-keygen", "-lf", str(public)], capture_output=True, text=True)
        assert shown.stdout.split()[1] in str(refused.value)


async def test_the_host_key_of_the_connection_is_the_only_one_trusted(server: OpenSsh, tmp_path: Path) -> None:
    good = SshChannel(server.connection(host_key=server.host_key))
    await (await good.open(server.target())).close()
    bad = SshChannel(server.connection(host_key=keygen(tmp_path / "other")))
    with pytest.raises(HostKeyChanged):
        await bad.open(server.target())


async def test_asking_for_no_host_key_check_is_not_honoured(server: OpenSsh, tmp_path: Path) -> None:
    given = server.connection(no_host_key_check="true", known_hosts_file=str(tmp_path / "none"))
    with pytest.raises(HostKeyUnknown):
        await SshChannel(given).open(server.target())


async def test_a_refused_key_is_login_refused_without_the_key_in_the_message(server: OpenSsh, tmp_path: Path) -> None:
    keygen(tmp_path / "stranger")
    text = (tmp_path / "stranger").read_text()
    connection = Connection(id="ssh_test", login="root", extra={
        "private_key": text, "known_hosts_file": str(server.known_hosts),
    })  # fmt: skip
    with pytest.raises(LoginRefused) as refused:
        await SshChannel(connection).open(server.target())
    assert "ssh_test" in str(refused.value)
    assert text.splitlines()[1] not in str(refused.value)


async def test_private_key_text_logs_in(server: OpenSsh) -> None:
    connection = Connection(id="ssh_test", login="root", extra={
        "private_key": (server.directory / "client").read_text(), "known_hosts_file": str(server.known_hosts),
    })  # fmt: skip
    await (await SshChannel(connection).open(server.target())).close()


async def test_an_unreadable_key_file_is_login_refused(server: OpenSsh, tmp_path: Path) -> None:
    with pytest.raises(LoginRefused, match="nowhere"):
        await SshChannel(server.connection(key_file=str(tmp_path / "nowhere"))).open(server.target())


async def test_a_closed_port_is_offline(server: OpenSsh, tmp_path: Path) -> None:
    closed = OpenSsh(tmp_path / "closed")
    with pytest.raises(TargetOffline, match="counts as offline"):
        await SshChannel(closed.connection()).open(closed.target(), deadline=2.0)


async def test_a_port_that_accepts_and_says_nothing_is_offline_in_time(server: OpenSsh) -> None:
    silent = await asyncio.start_server(lambda _r, _w: None, ADDRESS, 0)
    port = silent.sockets[0].getsockname()[1]
    target = Target(name="silent", members=(Member(address=ADDRESS, port=port),))
    with pytest.raises(TargetOffline):
        await SshChannel(server.connection()).open(target, deadline=1.0)
    silent.close()


async def test_a_jump_host_carries_the_connection(server: OpenSsh, state: Path) -> None:
    """The jump host is verified and logged in to like any other."""
    jumping = server.connection(jump_host=f"root@{ADDRESS}:{server.port}")
    session = await SshChannel(jumping, state_dir=str(state)).open(server.target())
    step = act("echo through")
    progress = await session.wait(await session.start(new_id(), step), step)
    await session.close()
    assert progress.reply is not None
    assert progress.reply.stdout == "through\n"


@pytest.mark.parametrize("word", ["it's", "$(touch pwned)", "`id`", "a\nb", 'x" y', "\\", "; exit 9", "é\t*"])
async def test_hostile_words_reach_the_payload_unchanged(session: SshSession, word: str) -> None:
    step = act(f"printf %s {quote(word)}")
    progress = await session.wait(await session.start(new_id(), step), step)
    assert progress.reply is not None
    assert progress.reply.stdout == word
    assert (await session.read(step)).stdout == word


async def test_a_script_that_breaks_out_of_the_frame_is_refused_and_runs_nothing(
    session: SshSession, tmp_path: Path
) -> None:
    touched = tmp_path / "touched"
    reply = await session.read(act(f"touch {quote(str(touched))}\nif true; then"))
    assert reply.exit_code == 2
    assert not touched.exists()


async def test_a_reading_step_after_a_cut_is_begun_again(server: OpenSsh, session: SshSession) -> None:
    server.cut_sessions()
    assert (await session.read(act("echo again"))).stdout == "again\n"


async def test_a_login_refused_after_one_that_was_let_in_is_offline_and_waited_for(state: Path, tmp_path: Path) -> None:
    """A host that boots refuses logins for a while."""
    sshd = OpenSsh(tmp_path / "own")
    sshd.start()
    session = await SshChannel(sshd.connection(), state_dir=str(state)).open(sshd.target())
    allowed = (tmp_path / "own" / "authorized_keys").read_text()
    (tmp_path / "own" / "authorized_keys").write_text("")
    sshd.cut_sessions()
    with pytest.raises(TargetOffline, match="booting"):
        await session.read(act("true"))
    step = act("true")
    starting = asyncio.create_task(session.start(new_id(), step))
    (tmp_path / "own" / "authorized_keys").write_text(allowed)
    handle = await starting
    assert (await session.wait(handle, step)).attach is Attach.ENDED
    await session.close()
    sshd.stop()
