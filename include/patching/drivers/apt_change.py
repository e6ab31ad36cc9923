"""Scripts that change a host: fetch into our store, install the whole closure at once, restart, reboot."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote

from patching.change import IfInterrupted, Patch, Phase, Step, StepKind
from patching.channels.remote_job import STATE_DIR
from patching.drivers.apt_archive import fetch_archived, open_archive
from patching.drivers.apt_options import AptOptions
from patching.drivers.apt_shell import (
    CACHE,
    CHANGES,
    CLOSURE_CHANGED,
    ENVIRONMENT,
    INTERRUPTED,
    REPAIR,
    STORE,
    STORE_DAMAGED,
    VERIFIED,
    VERSION_GONE,
    apt_get,
    call,
    checked,
)
from patching.drivers.apt_text import bare

STORE_DAYS = 90
TIMERS = "apt-daily-upgrade.timer apt-daily.timer"


def act(name: str, phase: Phase, script: str, deadline: float, **more: object) -> Step:
    """Make an acting step that runs as root."""
    call = {"script": script, "sudo": True}
    kind = StepKind.ACTIVATE if phase is Phase.ACTIVATE else StepKind.ACT
    step = Step(name=name, phase=phase, kind=kind, call=call, deadline=deadline)
    return step.model_copy(update=more)


def old_of(patches: Sequence[Patch]) -> list[tuple[str, str]]:
    """Give (component, version) of everything that an undo has to bring back."""
    return [(patch.component, patch.before) for patch in patches if patch.before is not None]


def new_of(patches: Sequence[Patch]) -> list[tuple[str, str]]:
    """Give (component, version) of everything that the change installs."""
    return [(patch.component, patch.after) for patch in patches if patch.after is not None]


_FETCH = f"""
store={STORE}
mkdir -p "$store"; chmod 755 "$store"
work=$(mktemp -d "$store/.fetch.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work"
{VERIFIED}
named() {{
  [ "$(dpkg-deb -f "$3" Package Architecture Version 2>/dev/null)" = "Package: ${{1%%:*}}
Architecture: ${{1##*:}}
Version: $2" ] || {{ rm -f "$3"; return 1; }}
}}
file_it() {{
  named "$@" || return 1
  sha256sum "$3" > "$3.sha256" && sync "$3" "$3.sha256" &&
    mv -f "$3.sha256" "$store/" && mv -f "$3" "$store/" && sync "$store" && rm -f "$store/$3.missing"
}}
have() {{ verified "$3" && touch "$store/$3"; }}
from_index() {{ apt-get -q -o APT::Sandbox::User=root download "$1=$2"; }}
from_cache() {{ [ -f {CACHE}/"$3" ] && cp {CACHE}/"$3" .; }}
# Without an archive there is nothing more to ask.
from_archive() {{ return 1; }}
@ARCHIVE@
lacking=
need() {{ have "$@" || lacking="$lacking $1=$2"; }}
gone=0
new() {{
  have "$@" || file_it "$@" || {{ from_index "$@" && file_it "$@"; }} || {{ from_cache "$@" && file_it "$@"; }} || {{
    echo "$1=$2 is in no index any more and not in our store: plan anew" >&2; gone=1
  }}
}}
old() {{
  have "$@" || {{ from_cache "$@" && file_it "$@"; }} || {{ from_index "$@" 2>/dev/null && file_it "$@"; }} ||
    {{ from_archive "$@" 2>/dev/null && file_it "$@"; }} || {{ : > "$store/$3.missing"; echo "no undo: $1=$2"; }}
}}
"""

_PRUNE = f"""
# What nobody has needed for {STORE_DAYS} days goes, except what is installed: an undo may need that next.
set +f
find "$store" -maxdepth 1 -name '*.deb' -mtime +{STORE_DAYS} | while read -r path; do
  installed=$(dpkg-query -W -f '${{Version}}' "$(dpkg-deb -f "$path" Package)" 2>/dev/null)
  [ "$installed" = "$(dpkg-deb -f "$path" Version)" ] || rm -f "$path" "$path.sha256"
done
exit 0
"""


def prepare_step(options: AptOptions, patches: Sequence[Patch]) -> Step:
    """Fetch every planned version, and the installed ones that an undo needs, into our store, with their hashes.

    apt checks what it downloads against the signed index; the hash recorded then is checked again before each use.
    Exit code 44: a planned version can't be had any more. An old one that can't be had is marked ``missing``.
    """
    new, old = new_of(patches), old_of(patches)
    archive = fetch_archived() + open_archive(options) if options.undo.archive else ""
    # One download of all is quick; where one of them is gone, they are fetched one by one to find out which.
    lines = [call("need", *each) for each in new]
    lines.append('[ -z "$lacking" ] || from_all')
    lines += [call("new", *each) for each in new]
    lines.append(f'[ "$gone" -eq 0 ] || exit {VERSION_GONE}')
    lines += [call("old", *each) for each in old]
    everything = "from_all() { apt-get -q -o APT::Sandbox::User=root download $lacking; }\n"
    script = ENVIRONMENT + _FETCH.replace("@ARCHIVE@", archive) + everything + "\n".join(lines) + _PRUNE
    return act("download", Phase.PREPARE, script, options.prepare_timeout)


def expected_changes(patches: Sequence[Patch], *, undo: bool) -> list[str]:
    """List what a simulation may show, one change a line as ``CHANGES`` prints them; anything else is a surprise."""
    lines = []
    for patch in patches:
        version = patch.before if undo else patch.after
        if version is None:
            lines.append(f"Remv {bare(checked(patch.component, '0')[0])}")
        else:
            component, version = checked(patch.component, version)
            lines.append(f"Inst {component}={version}")
    return lines


# apt's own last words are "dpkg returned an error code"; a person needs to know which package it was.
_UNFINISHED = r"""[ "$code" -eq 0 ] || dpkg-query -W -f '${db:Status-Status} ${binary:Package}\n' |
  awk '$1 !~ /^(installed|not-installed|config-files)$/ { said = said ", " $2 " is " $1 }
    END { if (said) print "dpkg did not finish: " substr(said, 3) }' >&2
"""


def transaction_script(options: AptOptions, patches: Sequence[Patch], *, undo: bool) -> str:
    """Write the one apt-get call for the whole closure, simulated first; nothing outside the closure may change.

    Exit codes: 43 something else would change too, 45 a kept file is damaged, 46 dpkg can't be repaired,
    100 apt's own failure.
    """
    allow = " --allow-downgrades" if undo else ""
    lines = []
    for patch in patches:
        version = patch.before if undo else patch.after
        if version is None:
            lines.append(f'specs="$specs {checked(patch.component, "0")[0]}-"')
        else:
            lines.append(call("add", patch.component, version))
    expected = quote("\n".join(expected_changes(patches, undo=undo)))
    # An undo mends what a broken postinst left; running that postinst again first would only fail again.
    repair = "true" if undo else f"exit {INTERRUPTED}"
    return f"""\
{ENVIRONMENT}
store={STORE}
{VERIFIED}{CHANGES}{REPAIR}
if interrupted; then
  echo 'dpkg was interrupted: dpkg --configure -a first'
  dpkg --force-confdef --force-confold --configure -a || {{ echo 'dpkg --configure -a failed' >&2; {repair}; }}
fi
specs=; damaged=
add() {{
  if [ -f "$store/$3" ]; then
    verified "$3" || damaged="$damaged $3"
    specs="$specs $store/$3"
  elif {"true" if undo else "false"} && [ -f "{CACHE}/$3" ]; then
    specs="$specs {CACHE}/$3"
  else
    specs="$specs $1=$2"
  fi
}}
{chr(10).join(lines)}
[ -z "$damaged" ] || {{ echo "our store is damaged, the hash differs:$damaged" >&2; exit {STORE_DAMAGED}; }}
apt() {{ {apt_get(options)}{allow} "$@"; }}
rehearsal=$(apt -s install $specs 2>&1) || {{ printf '%s\\n' "$rehearsal" >&2; exit 100; }}
surprise=$(printf '%s\\n' "$rehearsal" | changes | grep -vxF {expected})
if [ -n "$surprise" ]; then
  echo 'the transaction is not the planned one any more; besides it, apt would do:' $surprise >&2
  exit {CLOSURE_CHANGED}
fi
started=$(mktemp) || exit 1
apt install $specs; code=$?
find /etc -xdev -newer "$started" -name '*.dpkg-dist' 2>/dev/null | sed 's/^/kept conffile, new one beside it: /'
rm -f "$started"
{_UNFINISHED}"""


def install_step(options: AptOptions, patches: Sequence[Patch]) -> Step:
    """Install the whole planned closure in one transaction."""
    script = transaction_script(options, patches, undo=False) + "exit $code\n"
    return act("install", Phase.APPLY, script, options.apply_timeout)


def _restart(units: str) -> str:
    return f"""
bad=
for unit in {units}; do
  if [ -d /run/systemd/system ]; then systemctl restart --no-ask-password "$unit" < /dev/null
  else service "${{unit%.service}}" restart < /dev/null; fi || bad="$bad $unit"
done
[ -z "$bad" ] || {{ echo "did not restart:$bad" >&2; exit 1; }}
"""


def restart_step(units: Sequence[str]) -> Step:
    """Restart services so that they run what is installed."""
    script = ENVIRONMENT + _restart(" ".join(quote(unit) for unit in units))
    return act("restart-services", Phase.ACTIVATE, script, 600.0)


def restart_stale(excluded: Sequence[str]) -> str:
    """Write the restart of whatever needrestart names at that moment, but for ``excluded`` patterns."""
    skip = "|".join(excluded)
    return f"""
stale=$(needrestart -b -r l 2>/dev/null | sed -n 's/^NEEDRESTART-SVC: //p')
units=
for unit in $stale; do case "$unit" in {skip}) ;; *) units="$units $unit" ;; esac; done
{_restart("$units")}"""


def reboot_step() -> Step:
    """Ask for a reboot and end, so that the exit code is written before the machine goes down."""
    script = f"""{ENVIRONMENT}
setsid -f sh -c 'sleep 1; systemctl reboot || reboot' > /dev/null 2>&1
"""
    return act(
        "reboot", Phase.ACTIVATE, script, 900.0, expects_reboot=True, if_interrupted=IfInterrupted.SUCCESS
    )  # fmt: skip


def takeover_step() -> Step:
    """Stop unattended-upgrades' timers, write down which ran, and let them come back by themselves after a day."""
    script = f"""{ENVIRONMENT}
note={STATE_DIR}/takeover
for timer in {TIMERS}; do systemctl is-active -q $timer && echo $timer; done > "$note.tmp"
[ -e "$note" ] || mv "$note.tmp" "$note"
systemctl stop {TIMERS} || exit 1
systemd-run -q --unit=patching-takeover-end --on-active=1d \\
  /bin/sh -c 'xargs -r systemctl start < {STATE_DIR}/takeover; rm -f {STATE_DIR}/takeover' || true
"""
    return act("take-over", Phase.APPLY, script, 120.0)


def hand_back_script() -> str:
    """Write the end of a takeover: start the timers that ran before."""
    return f"""
if [ -e {STATE_DIR}/takeover ]; then
  systemctl stop patching-takeover-end.timer 2>/dev/null
  xargs -r systemctl start < {STATE_DIR}/takeover && rm -f {STATE_DIR}/takeover
fi
"""


def hand_back_step() -> Step:
    """End a takeover."""
    return act("hand-back", Phase.ACTIVATE, ENVIRONMENT + hand_back_script(), 120.0)
