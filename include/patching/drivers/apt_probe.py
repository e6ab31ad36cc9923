"""Reading a host with apt: scripts of few processes, in rounds, each of which asks by what the one before said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from patching.change import Patch, Phase, Reply, Step, StepKind
from patching.channels.remote_job import STATE_DIR
from patching.drivers.apt_options import AptOptions
from patching.drivers.apt_reading import OLD_VERSIONS, REHEARSE, STATE, AptReading, old_versions
from patching.drivers.apt_shell import CACHE, ENVIRONMENT, STORE, apt_get, call

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
        old = old_versions(AptReading(replies).rehearsal)
        lines = [call("have", component, version) for component, version in old.items()]
        archive = _archive_question(options, old)
        return [_read(OLD_VERSIONS, _script(_OLD_VERSIONS, options, lines) + archive)] if lines else []
    return []


def _archive_question(options: AptOptions, old: Mapping[str, str]) -> str:
    from patching.drivers.apt_archive import ask_archive

    return ask_archive(options, old) if options.undo.archive else ""
