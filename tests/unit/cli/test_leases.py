"""``patching leases`` reads the API and tells who holds what and who waits for whom (S8)."""

from __future__ import annotations

import json

import pytest

from patching.cli import main as cli
from patching.report.lease_view import lease_view
from unit.cli.test_status import Api, api  # noqa: F401 - it is a fixture
from unit.report.test_lease_view import HELD, NOW, SINCE, WAITING


def test_leases_are_shown_as_text_and_as_the_document(api: Api, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    document = lease_view(HELD, WAITING, SINCE, NOW)
    api.answers["/patching/api/leases"] = [document]
    assert cli.run(["leases"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Held\n  a  rollout r1  since 2026-11-24 22:18Z (12 min)")
    assert "waits for domain web az=a: 1 of 1 in use by a (rollout r1)" in out
    assert cli.run(["leases", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == document
