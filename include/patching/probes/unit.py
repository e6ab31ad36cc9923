"""Unit probe: service units that must be active, by systemd where it runs, else by their init scripts."""

from __future__ import annotations

import shlex

from patching.change import Phase, Step, StepKind
from patching.policy import UnitProbe

DEADLINE = 60.0

# A unit that is just starting is asked again for a while: "activating" is neither active nor failed.
_ASK = """\
bad=0
for unit in {units}; do
  if [ -d /run/systemd/system ]; then
    left=20
    state=$(systemctl is-active -- "$unit" 2>/dev/null)
    while [ "$left" -gt 0 ] && {{ [ "$state" = activating ] || [ "$state" = reloading ]; }}; do
      sleep 1; left=$((left - 1)); state=$(systemctl is-active -- "$unit" 2>/dev/null)
    done
  elif service "${{unit%.service}}" status >/dev/null 2>&1; then
    state=active
  else
    state="not running"
  fi
  echo "$unit: ${{state:-unknown}}"
  [ "$state" = active ] || bad=1
done
exit $bad
"""


def unit_step(check: str, probe: UnitProbe) -> Step:
    """Build the reading step: one line a unit with its state; exit 1 when one of them is not active."""
    script = _ASK.format(units=" ".join(shlex.quote(unit) for unit in probe.active))
    call = {"script": script, "sudo": False}
    return Step(name=f"probe-{check}", phase=Phase.VERIFY, kind=StepKind.READ, call=call, deadline=DEADLINE)
