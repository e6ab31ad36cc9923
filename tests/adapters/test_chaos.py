"""Chaos (S4, F1, F2, F8, F10): engines killed, stopped, cut off and misled by seeds; judged on the targets themselves.

``make chaos`` runs thousands of seeds; a seed that fails says how to run it alone (docs/how-to/run-chaos.md).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

NEEDED = ("sshd", "unshare", "setpriv", "ssh-keygen")
pytestmark = pytest.mark.timeout(900)
WITHOUT = [name for name in NEEDED if shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") is None]
LONGEST = 600
FIGURES = re.compile(r"chaos: runs (\d+), faults (\d+), steps (\d+), twice 0, exceeded 0, lost 0, wrong 0")


def chaos(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, int, int]:
    """Run the harness in a process of its own; gives runs, faults and steps, and shows the summary line."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "chaos", *arguments]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=LONGEST)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    with capsys.disabled():
        print(f"\n{ran.stdout.strip()}")  # noqa: T201 - the figures are the point
    found = FIGURES.search(ran.stdout)
    assert found, ran.stdout
    runs, faults, steps = (int(number) for number in found.groups())
    return runs, faults, steps


def test_engines_killed_frozen_and_misled_on_simulated_hosts_leave_every_target_right(
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs, faults, steps = chaos(capsys, "--seeds", "200")
    assert runs == 200
    assert faults > 150
    assert steps > 1000


@pytest.mark.skipif(os.geteuid() != 0, reason="machines of their own need root")
@pytest.mark.skipif(bool(WITHOUT), reason=f"{', '.join(WITHOUT)} missing")
def test_sshd_restarted_connections_cut_and_hosts_rebooted_in_mid_step_leave_every_target_right(
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs, faults, steps = chaos(capsys, "--channel", "ssh", "--seeds", "20")
    assert runs == 20
    assert faults > 8
    assert steps > 60
