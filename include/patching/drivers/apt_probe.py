"""Reading a host with apt: scripts of few processes, and how their output becomes a Snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from patching.change import Patch, Phase, Reply, Step, StepKind
from patching.channels.remote_job import STATE_DIR
from patching.drivers.apt_kernel import kernel_reasons
from patching.drivers.apt_options import AptOptions
from patching.drivers.apt_shell import CACHE, ENVIRONMENT, STORE, apt_get, call
from patching.drivers.apt_text import (
    Packages,
    Rehearsal,
    VersionRow,
    bare,
    complaint,
    component_names,
    matching,
    parse_candidates,
    parse_dpkg,
    parse_needrestart,
    parse_policy_files,
    parse_policy_tables,
    parse_rehearsal,
    sections,
)
from patching.target import Offer, Snapshot, Target, Transaction
from patching.value import JsonValue

STATE, REHEARSE, OLD_VERSIONS = "state", "rehearse", "old-versions"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NATIVE = "amd64"
# Restarting these does harm; only a reboot renews them.
ONLY_BY_REBOOT = ("dbus.service", "dbus-broker.service", "systemd-logind.service")
NOT_OURS_TO_RESTART = ("user@*.service", "getty@*.service", "serial-getty@*.service", "*dm.service")

_STATE = r"""
now=$(date +%s)
stamp=@STATE@/refreshed
if ! [ -e "$stamp" ] || [ $((now - $(stat -c %Y "$stamp"))) -ge @AGE@ ]; then
  mkdir -p @STATE@
  text=$(apt-get update -q -o APT::Update::Error-Mode=any -o DPkg::Lock::Timeout=@LOCK@ 2>&1); code=$?
  printf '%s\n%s\n' "$code" "$text" | head -c 4000 > "$stamp"
fi
echo @@update; cat "$stamp"
echo @@os; cat /etc/os-release
echo @@host
echo "boot=$(cat /proc/sys/kernel/random/boot_id)"; echo "kernel=$(uname -r)"; echo "build=$(uname -v)"
echo "uptime=$(cut -d' ' -f1 /proc/uptime)"; echo "arch=$(dpkg --print-architecture)"
echo @@dpkg
dpkg-query -W -f '${Package}\t${Architecture}\t${Version}\t${db:Status-Abbrev}\t${source:Package}\t${source:Version}\n'
echo @@sources; apt-cache policy
echo @@versions
apt-cache policy $(dpkg-query -W -f '${binary:Package} ') | awk '
  function flush() { if (count > 1) printf "%s", block; block = ""; count = 0 }
  /^[^ ]/ { flush() }
  /^ (\*\*\*|   ) [^ ]+ -?[0-9]/ { count++ }
  { block = block $0 "\n" }
  END { flush() }'
echo @@reboot; [ -e /var/run/reboot-required ] && { echo yes; cat /var/run/reboot-required.pkgs 2>/dev/null; }
echo @@needrestart; command -v needrestart > /dev/null && needrestart -b -r l 2>/dev/null
echo @@patchers
apt-config dump APT::Periodic
for unit in apt-daily-upgrade.timer apt-daily-upgrade.service unattended-upgrades.service; do
  echo "unit $unit $(systemctl is-enabled $unit 2>/dev/null) $(systemctl is-active $unit 2>/dev/null)"
done
[ -e @STATE@/takeover ] && echo takeover
echo @@disk; df -Pk / /var /boot 2>/dev/null
echo @@locks
perl -MFcntl=:DEFAULT,:flock,:seek,F_GETLK,F_WRLCK,F_UNLCK -e '
  for my $path (@ARGV) {
    open(my $file, "+<", $path) or next;
    my $lock = pack("s s x![l!] l! l! i x![l!]", F_WRLCK, SEEK_SET, 0, 0, 0);
    fcntl($file, F_GETLK, $lock) or next;
    my ($type, $pid) = (unpack("s s x![l!] l! l! i", $lock))[0, 4];
    next if $type == F_UNLCK;
    my $name = ""; if (open(my $comm, "<", "/proc/$pid/comm")) { $name = <$comm>; chomp $name }
    print "$path $pid $name\n";
  }' /var/lib/dpkg/lock-frontend /var/lib/dpkg/lock /var/lib/apt/lists/lock /var/cache/apt/archives/lock
echo @@interrupted; ls -A /var/lib/dpkg/updates
echo @@store; ls -A @STORE@ 2>/dev/null | grep -v sha256
echo @@conffiles; find /etc -xdev -name '*.dpkg-dist' 2>/dev/null
echo @@clock; date +%s
"""

_REHEARSE = """
specs=
want() { if [ -f @STORE@/"$3" ]; then specs="$specs @STORE@/$3"; else specs="$specs $1=$2"; fi; }
@WANTED@
@APT@ -s -o Debug::pkgDepCache::AutoInstall=true install $specs 2>&1
code=$?
[ $code -eq 0 ] && @APT@ --print-uris -qq install $specs 2>/dev/null
exit $code
"""

_OLD_VERSIONS = """
have() {
  if [ -f @STORE@/"$3" ]; then echo "$1=$2 store"; elif [ -f @CACHE@/"$3" ]; then echo "$1=$2 cache"; fi
}
@WANTED@
"""


def _script(text: str, options: AptOptions, wanted: Sequence[str] = ()) -> str:
    words = {
        "@STATE@": STATE_DIR,
        "@STORE@": STORE,
        "@CACHE@": CACHE,
        "@AGE@": str(round(options.refresh_after)),
        "@LOCK@": str(round(options.lock_timeout)),
        "@APT@": apt_get(options),
        "@WANTED@": "\n".join(wanted),
    }
    for word, value in words.items():
        text = text.replace(word, value)
    return ENVIRONMENT + text


def _read(name: str, script: str, deadline: float = 300.0) -> Step:
    call = {"script": script, "sudo": True}
    return Step(name=name, phase=Phase.PROBE, kind=StepKind.READ, call=call, deadline=deadline)


def probe_steps(options: AptOptions, wanted: Sequence[Patch], replies: Mapping[str, Reply]) -> list[Step]:
    """Give the next round: the host's state; then, with ``wanted``, the rehearsal and where old versions are."""
    if STATE not in replies:
        return [_read(STATE, _script(_STATE, options))]
    after = [patch for patch in wanted if patch.after is not None]
    if not after or not replies[STATE].ok:
        return []
    if REHEARSE not in replies:
        lines = [call("want", patch.component, patch.after or "") for patch in after]
        return [_read(REHEARSE, _script(_REHEARSE, options, lines))]
    if OLD_VERSIONS not in replies:
        old = old_versions(_Reading(replies).rehearsal)
        lines = [call("have", component, version) for component, version in old.items()]
        archive = _archive_question(options, old)
        return [_read(OLD_VERSIONS, _script(_OLD_VERSIONS, options, lines) + archive)] if lines else []
    return []


def _archive_question(options: AptOptions, old: Mapping[str, str]) -> str:
    from patching.drivers.apt_archive import ask_archive

    return ask_archive(options, old) if options.undo.archive else ""


def old_versions(rehearsal: Rehearsal) -> dict[str, str]:
    """Give what an undo of a rehearsed transaction would have to bring back."""
    return {name: before for name, (before, _) in rehearsal.actions.items() if before is not None}


class _Reading:
    """The replies of all rounds, parsed once."""

    def __init__(self, replies: Mapping[str, Reply]) -> None:
        self.replies = replies
        self.parts = sections(replies[STATE].stdout) if STATE in replies else {}
        self.host = _pairs(self.parts.get("host", ""))
        self.packages: Packages = parse_dpkg(self.parts.get("dpkg", ""))
        self.names = component_names(self.packages.installed, self.host.get("arch", NATIVE))
        origins = parse_policy_files(self.parts.get("sources", ""))
        tables = parse_policy_tables(self.parts.get("versions", ""), origins)
        self.tables: dict[str, list[VersionRow]] = {self.names.get(name, name): rows for name, rows in tables.items()}

    @property
    def rehearsal(self) -> Rehearsal:
        """The simulated transaction."""
        reply = self.replies[REHEARSE]
        return parse_rehearsal(reply.stdout, reply.exit_code, self.names)

    def offers(self) -> dict[str, tuple[Offer, ...]]:
        """Versions that an index offers and that are not installed; a pin below zero forbids a version."""
        found = {}
        for component, rows in self.tables.items():
            installed = self.packages.installed.get(component)
            offered = tuple(
                Offer(version=row.version, origins=row.origins)
                for row in rows
                if row.origins and row.priority >= 0 and installed is not None and row.version != installed.version
            )
            if offered:
                found[component] = offered
        return found

    def undo_missing(self, rehearsal: Rehearsal) -> tuple[str, ...]:
        """Name the old versions that neither our store, nor the cache, nor an index, nor the archive has."""
        reply = self.replies.get(OLD_VERSIONS)
        found = {line.split()[0] for line in reply.stdout.splitlines() if line.strip()} if reply else set()
        missing = []
        for component, version in old_versions(rehearsal).items():
            rows = self.tables.get(component, ())
            in_index = any(row.version == version and row.origins for row in rows)
            if not in_index and f"{component}={version}" not in found:
                missing.append(f"{component}={version}")
        return tuple(missing)

    def transaction(self) -> Transaction | None:
        """Give the rehearsed transaction, None where none was asked for."""
        if REHEARSE not in self.replies:
            return None
        rehearsal = self.rehearsal
        return Transaction(
            actions=rehearsal.actions,
            undo_missing=self.undo_missing(rehearsal),
            download_bytes=rehearsal.download_bytes,
            error=rehearsal.error,
        )


def parse_snapshot(target: Target, replies: Mapping[str, Reply]) -> Snapshot:
    """Turn the replies of all rounds into a Snapshot; a refused sudo leaves it empty but for ``facts["sudo"]``."""
    reply = replies.get(STATE)
    reading = _Reading(replies)
    if reply is None or not reading.packages.installed:
        return Snapshot(target=target.name, taken_at=EPOCH, facts=_unread(reply))
    parts, packages = reading.parts, reading.packages
    kernel, build = reading.host.get("kernel"), reading.host.get("build", "")
    stale = parse_needrestart(parts.get("needrestart", ""))
    flag = parts.get("reboot", "").split()
    reasons = [*_flagged(flag), *kernel_reasons(kernel or "", build, packages.installed)]
    reasons += [
        f"{unit} runs replaced files and is only renewed by a reboot" for unit in matching(stale, ONLY_BY_REBOOT)
    ]
    not_restarted = set(matching(stale, (*ONLY_BY_REBOOT, *NOT_OURS_TO_RESTART)))
    return Snapshot(
        target=target.name,
        taken_at=EPOCH,
        installed=packages.installed,
        offers=reading.offers(),
        kernel=kernel,
        boot_id=reading.host.get("boot"),
        reboot_required=bool(reasons),
        reboot_reasons=tuple(reasons),
        stale_services=tuple(unit for unit in stale if unit not in not_restarted),
        held=packages.held,
        half_installed=tuple(packages.half),
        competing_patchers=_competing(parts.get("patchers", ""), packages),
        transaction=reading.transaction(),
        ecosystem=_ecosystem(_pairs(parts.get("os", ""))),
        facts=_facts(reading),
    )


def _unread(reply: Reply | None) -> dict[str, JsonValue]:
    said = (reply.stderr.strip().splitlines() or [f"exit code {reply.exit_code}"])[-1] if reply else "not read"
    return {"sudo": "sudo:" not in said, "unread": said}


def _facts(reading: _Reading) -> dict[str, JsonValue]:
    parts = reading.parts
    code, _, said = parts.get("update", "").partition("\n")
    failed = int(code.strip() or 0)
    because = reading.rehearsal.because if REHEARSE in reading.replies else {}
    patchers = parts.get("patchers", "").splitlines()
    return {
        "sudo": True,
        "arch": reading.host.get("arch"),
        "uptime": float(reading.host.get("uptime", "0") or 0),
        "epoch": int(parts.get("clock", "0").strip() or 0),
        "update": {"code": failed, "said": (complaint(said) or _last(said)) if failed else ""},
        "disk": _disk(parts.get("disk", "")),
        "locks": [line.split(maxsplit=2) for line in parts.get("locks", "").splitlines() if line.strip()],
        "interrupted": bool(parts.get("interrupted", "").strip()),
        "half": reading.packages.half,
        "store": parts.get("store", "").split(),
        "conffiles": parts.get("conffiles", "").splitlines(),
        "needrestart": "NEEDRESTART-VER" in parts.get("needrestart", ""),
        "candidates": _candidates(reading),
        "because": because,
        "takeover": "takeover" in patchers,
    }


def _candidates(reading: _Reading) -> dict[str, str]:
    """What apt itself would choose; where it is not the newest version, a pin is the reason."""
    found = parse_candidates(reading.parts.get("versions", ""))
    return {reading.names.get(name, name): version for name, version in found.items()}


def _pairs(text: str) -> dict[str, str]:
    return {key: value.strip('"') for key, _, value in (line.partition("=") for line in text.splitlines())}


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _flagged(flag: Sequence[str]) -> list[str]:
    if not flag:
        return []
    asked = ", ".join(dict.fromkeys(flag[1:]))
    return [f"asked for by {asked}" if asked else "the host asks for it (/var/run/reboot-required)"]


def _ecosystem(release: Mapping[str, str]) -> str:
    if release.get("ID") == "ubuntu":
        lts = ":LTS" if "LTS" in release.get("VERSION", "") else ""
        return f"Ubuntu:{release.get('VERSION_ID', '')}{lts}"
    return f"Debian:{release.get('VERSION_ID', '')}".rstrip(":")


def _competing(text: str, packages: Packages) -> tuple[str, ...]:
    """Name unattended-upgrades where it is installed, switched on, and something starts it."""
    if not any(bare(name) == "unattended-upgrades" for name in packages.installed):
        return ()
    lines = [line.split() for line in text.splitlines()]
    settings = {words[0]: words[1].strip('";') for words in lines if len(words) == 2 and words[0].startswith("APT::")}
    units = {words[1]: set(words[2:]) for words in lines if words[:1] == ["unit"]}
    switched_on = settings.get("APT::Periodic::Unattended-Upgrade", "0") not in ("", "0")
    switched_on = switched_on and settings.get("APT::Periodic::Enable", "1") != "0"
    timer = units.get("apt-daily-upgrade.timer", set())
    running = {"active", "activating"} & units.get("apt-daily-upgrade.service", set())
    started = bool({"enabled", "active"} & timer) or not any(units.values())
    return ("unattended-upgrades",) if (switched_on and started) or running else ()


def _disk(text: str) -> dict[str, JsonValue]:
    """Read ``df -Pk``: the directory asked for → free kilobytes, and which are file systems of their own."""
    found: dict[str, JsonValue] = {}
    rows = [line.split() for line in text.splitlines()[1:]]
    for asked, row in zip(("/", "/var", "/boot"), (row for row in rows if len(row) >= 6), strict=False):
        found[asked] = {"free_kb": int(row[3]), "mounted": row[5] == asked}
    return found
