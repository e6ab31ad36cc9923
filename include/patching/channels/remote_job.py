"""Shell text for detached steps on a target: pure builders, nothing here connects or runs anything.

A step lives in ``<state>/steps/<step id>/``: ``script`` (the payload), ``run`` (its runner), ``lock`` (held by the
runner for life, never by the payload), ``runner`` and ``started`` (pid, start time, boot id, epoch; ``started`` is
written by the process that then becomes the payload), ``out`` and ``err`` (capped), ``exit`` (written last, at once),
``forbidden`` (the tombstone of a step that was given up before it began; its directory may hold nothing else).
``<state>/guard.lock`` makes starting and looking one at a time, ``<state>/host.lock`` lets one acting step run at a
time, ``<state>/markers.log`` gets a line when a payload really begins. Only POSIX sh, coreutils and util-linux needed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from shlex import quote

from patching.channels.attach import Evidence

STATE_DIR = "/var/lib/patching"
OUTPUT_CAP = 512 * 1024
KEEP_DAYS = 90
GUARD_SECONDS = 45
"""How long a start waits for other programs of ours on the target; nothing is begun by who has given up waiting."""
_STEP_ID = re.compile(r"^[0-9a-zA-Z][0-9a-zA-Z_-]{0,127}$")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class JobPaths:
    """Where one step lives on the target; raises ValueError for a step id that could leave its directory."""

    step_id: str
    state: str = STATE_DIR

    def __post_init__(self) -> None:
        if not _STEP_ID.fullmatch(self.step_id):
            raise ValueError(f"{self.step_id!r} is not a step id: letters, digits, - and _ only")

    @property
    def steps(self) -> str:
        """Directory of all steps."""
        return f"{self.state}/steps"

    @property
    def directory(self) -> str:
        """Directory of this step."""
        return f"{self.steps}/{self.step_id}"


def remote_command(*, sudo: bool, seconds: float) -> str:
    """Give the constant command whose standard input is ``framed`` program text; killed after ``seconds``.

    The program goes through stdin, so that neither process lists nor sudo's log show it and no length limit applies.
    """
    return f"exec {'sudo -n ' if sudo else ''}/bin/sh -c 'exec timeout -k 5 {max(1, round(seconds))} /bin/sh -s'"


def framed(program: str) -> str:
    """Wrap a program so that sh reads all of it before running any, and nothing in it can eat the rest of it."""
    return "{\n" + program.rstrip("\n") + "\n} </dev/null\n"


_PUT = """\
put() { printf '%s\\n' "$2" > "$1.tmp" && sync "$1.tmp" && mv -f "$1.tmp" "$1" && sync .; }
"""

_START_TIME = """\
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }
"""

_RUNNER = """\
#!/bin/sh
# File descriptor 9 is this step's lock, taken by the starter and held until this process ends.
umask 077
PATH=@PATH@; export PATH
cd @DIR@ || exit 1
@PUT@@START_TIME@\
stamp() {
  printf 'pid=%s\\nstart=%s\\nboot=%s\\ntime=%s' "$1" "$(start_time "$1")" \\
    "$(cat /proc/sys/kernel/random/boot_id)" "$(date +%s)"
}
if [ "${1-}" = payload ]; then
  put started "$(stamp $$)" || { echo 'cannot record that this step starts: not started' >&2; exit 125; }
  printf '%s %s\\n' @ID@ "$(date +%s)" >> @MARKERS@
  umask 022; cd /
  exec @INTERPRETER@
fi
# The machine goes down: leave no exit code, so that this counts as interrupted and not as failed.
trap 'exit 143' TERM
put runner "$(stamp $$)" || exit 125
exec 7>>@HOST_LOCK@
flock 7 9>&-
for stream in out err; do
  [ -p $stream.pipe ] || mkfifo $stream.pipe
  (
    exec 7>&- 9>&- 6>>$stream.lock
    flock 6
    exec < $stream.pipe
    (ulimit -c 0; ulimit -f @BLOCKS@; exec cat > $stream) 2>/dev/null
    exec cat > /dev/null
  ) &
done
setsid /bin/sh @DIR@/run payload > out.pipe 2> err.pipe < /dev/null 7>&- 9>&- &
wait $!
code=$?
# Output that a daemon of the payload still holds open is not waited for.
for stream in out err; do flock -w 2 $stream.lock true 7>&- 9>&-; done
put exit $code
exec 7>&-
find @STEPS@ -mindepth 1 -maxdepth 1 -type d -mtime +@KEEP@ -exec rm -rf {} + 9>&-
"""


def runner_script(paths: JobPaths, *, run_as: str | None, output_cap: int) -> str:
    """Build the runner of a step: lock, turn, payload in a session of its own, capped output, atomic exit code.

    ``run_as`` is the login user of a payload that does not want root; None leaves it root.
    """
    script = quote(f"{paths.directory}/script")
    # /dev/fd lets the user read a script whose directory only root may enter.
    as_user = f"runuser -u {quote(run_as or '')} -- /bin/sh /dev/fd/5 5< {script}"
    words = {
        "@PATH@": _PATH,
        "@DIR@": quote(paths.directory),
        "@STEPS@": quote(paths.steps),
        "@ID@": quote(paths.step_id),
        "@MARKERS@": quote(f"{paths.state}/markers.log"),
        "@HOST_LOCK@": quote(f"{paths.state}/host.lock"),
        "@INTERPRETER@": as_user if run_as else f"/bin/sh {script}",
        "@BLOCKS@": str(max(1, output_cap // 512)),
        "@KEEP@": str(KEEP_DAYS),
        "@PUT@": _PUT,
        "@START_TIME@": _START_TIME,
    }
    text = _RUNNER
    for word, value in words.items():
        text = text.replace(word, value)
    return text


_LOOK = """\
recorded() { sed -n "s/^$2=//p" "$dir/$1" 2>/dev/null; }
alive() {
  pid=$(recorded started pid)
  [ -n "$pid" ] || return 1
  now=$(start_time "$pid")
  if [ -n "$now" ]; then [ "$now" = "$(recorded started start)" ]; else kill -0 "-$pid" 2>/dev/null; fi
}
flag() { if eval "$2"; then echo "$1=1"; else echo "$1=0"; fi; }
look() {
  echo patching-step=1
  echo "boot=$boot"
  flag directory '[ -d "$dir" ]'
  [ -d "$dir" ] || { echo; return 0; }
  # The lock is read first: when it is free, whatever its runner had to write is there.
  flag lock '! flock -n -s "$dir/lock" true'
  flag exit '[ -e "$dir/exit" ]'
  flag started '[ -e "$dir/started" ]'
  flag forbidden '[ -e "$dir/forbidden" ]'
  flag alive alive
  echo "recorded=$(cat "$dir/boot" 2>/dev/null)"
  echo "code=$(cat "$dir/exit" 2>/dev/null)"
  [ -e "$dir/exit" ] || { echo; return 0; }
  # Sizes are fixed first: a daemon may still be writing.
  out=$(stat -c %s "$dir/out" 2>/dev/null || echo 0)
  err=$(stat -c %s "$dir/err" 2>/dev/null || echo 0)
  printf 'out=%s\\nerr=%s\\n\\n' "$out" "$err"
  head -c "$out" "$dir/out" 2>/dev/null
  head -c "$err" "$dir/err" 2>/dev/null
  return 0
}
"""


def _preamble(paths: JobPaths) -> str:
    lines = [
        "umask 077",
        f"PATH={_PATH}; export PATH",
        f"state={quote(paths.state)}; steps={quote(paths.steps)}; dir={quote(paths.directory)}",
        "boot=$(cat /proc/sys/kernel/random/boot_id)",
    ]
    return "\n".join(lines) + "\n" + _START_TIME + _LOOK


def start_program(
    paths: JobPaths,
    payload: str,
    *,
    run_as: str | None = None,
    output_cap: int = OUTPUT_CAP,
    wait: float | None = None,
) -> str:
    """Build the program that starts a step, or attaches to it if its id is known: never a second run.

    Prints what ``parse_look`` reads; with ``wait`` once more when the step has ended, or after so many seconds: then
    starting it and waiting for its end is one program on the target. Two starts at once are one after the other under
    the guard lock; the runner inherits the step's lock from the starter, so there is no moment without a holder.
    """
    runner = runner_script(paths, run_as=run_as, output_cap=output_cap)
    return f"""\
{_preamble(paths)}
set -e
mkdir -p "$steps"
chmod 755 "$state"; chmod 700 "$steps"
exec 8>>"$state/guard.lock"
flock -w {GUARD_SECONDS} 8
if ! [ -d "$dir" ]; then
  new="$steps/.new-"{quote(paths.step_id)}
  rm -rf "$new"
  mkdir "$new"
  printf '%s\\n' {quote(payload)} > "$new/script"
  printf '%s' {quote(runner)} > "$new/run"
  chmod 644 "$new/script"
  sync "$new/script" "$new/run" "$new"
  mv -T "$new" "$dir"
  sync "$steps"
fi
cd "$dir"
{_PUT}
exec 9>>"$dir/lock"
if ! [ -e forbidden ] && ! [ -e exit ] && ! [ -e started ] && flock -n 9; then
  put boot "$boot"
  setsid -f /bin/sh "$dir/run" < /dev/null > /dev/null 2>&1 8>&-
fi
exec 9>&-
look
{"" if wait is None else _waiting(wait)}"""


def forbid_program(paths: JobPaths) -> str:
    """Build the program that gives a step up unless it has begun, then looks; prints what ``parse_look`` reads.

    The step's directory is the arbiter between a start and this, both under the guard lock: whoever makes it first
    is right. Where a prepared step lost its runner, the tombstone goes into the directory that is there.
    """
    return f"""\
{_preamble(paths)}
set -e
mkdir -p "$steps"
chmod 755 "$state"; chmod 700 "$steps"
exec 8>>"$state/guard.lock"
flock 8
{_PUT}
if ! [ -d "$dir" ]; then
  new="$steps/.new-"{quote(paths.step_id)}
  rm -rf "$new"
  mkdir "$new"
  date +%s > "$new/forbidden"
  sync "$new/forbidden" "$new"
  mv -T "$new" "$dir"
  sync "$steps"
else
  cd "$dir"
  exec 9>>lock
  if ! [ -e exit ] && ! [ -e started ] && flock -n 9; then put forbidden "$(date +%s)"; fi
  exec 9>&-
fi
look
"""


def look_program(paths: JobPaths) -> str:
    """Build the program that says what became of a step, without starting it; prints what ``parse_look`` reads."""
    return f"""\
{_preamble(paths)}
if [ -d "$steps" ]; then exec 8>>"$state/guard.lock"; flock 8; fi
look
"""


def wait_program(paths: JobPaths, seconds: float) -> str:
    """Build the program that blocks on the step's lock until it ends, at most ``seconds``, then looks.

    Where the runner was killed but the payload lives, it waits for the payload.
    """
    return f"{_preamble(paths)}\n{_waiting(seconds)}"


def _waiting(seconds: float) -> str:
    limit = max(1, round(seconds))
    return f"""\
set +e
exec 8>&-
if [ -d "$dir" ]; then
  flock -s -w {limit} "$dir/lock" true
  if ! [ -e "$dir/exit" ] && flock -n -s "$dir/lock" true && alive; then
    timeout {limit} tail -s 0.2 -f /dev/null --pid="$(recorded started pid)"
  fi
  exec 8>>"$state/guard.lock"; flock 8
fi
look
"""


def cancel_program(paths: JobPaths, grace: float = 10.0) -> str:
    """Build the program that ends a running step: TERM to its process group, after ``grace`` seconds KILL.

    The process is known by pid, start time and boot, so that nobody else's is hit. Before the payload began, its
    runner is ended instead and the step has never run.
    """
    limit = max(1, round(grace))
    return f"""\
{_preamble(paths)}
same() {{
  pid=$(recorded "$1" pid)
  [ -n "$pid" ] && [ "$(recorded "$1" boot)" = "$boot" ] && [ "$(start_time "$pid")" = "$(recorded "$1" start)" ]
}}
if [ -e "$dir/started" ]; then
  if same started; then
    kill -TERM "-$pid"
    timeout {limit} tail -s 0.1 -f /dev/null --pid="$pid" || kill -KILL "-$pid"
  fi
elif same runner; then
  kill -KILL "$pid"
fi
if [ -d "$dir" ]; then flock -s -w {limit} "$dir/lock" true; exec 8>>"$state/guard.lock"; flock 8; fi
look
"""


@dataclass(frozen=True)
class Look:
    """What a look printed: the evidence, the boots, and once ended the exit code and output."""

    evidence: Evidence
    boot_id: str
    recorded_boot_id: str
    exit_code: int | None
    stdout: bytes
    stderr: bytes


def parse_look(output: bytes) -> Look | None:
    """Read what ``look`` printed; None where the program did not get that far (sudo refused, disk full …).

    An exit code that is no number from 0 to 255 is None: not seen, never success.
    """
    head, separator, body = output.partition(b"\n\n")
    if not head.startswith(b"patching-step=1\n") or not separator:
        return None
    lines = head.decode("ascii", "replace").splitlines()
    words = dict(line.partition("=")[::2] for line in lines)
    boot, recorded = words.get("boot", ""), words.get("recorded", "")
    evidence = Evidence(
        directory=words.get("directory") == "1",
        lock_held=words.get("lock") == "1",
        started=words.get("started") == "1",
        exit_written=words.get("exit") == "1",
        same_boot=boot == recorded,
        group_alive=words.get("alive") == "1",
        forbidden=words.get("forbidden") == "1",
    )
    first = int(words.get("out", "0"))
    return Look(evidence, boot, recorded, _exit_code(words.get("code", "")), body[:first], body[first:])


def _exit_code(text: str) -> int | None:
    return int(text) if text.isdecimal() and int(text) <= 255 else None
