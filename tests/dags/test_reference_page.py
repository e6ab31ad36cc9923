"""docs/reference/dags.md is what the DAGs say today."""

from __future__ import annotations

from patching_dags.reference import PAGE, ROOT, page


def test_committed_page_is_the_generated_one() -> None:
    assert (ROOT / PAGE).read_text(encoding="utf-8") == page(), "run `make docs`"


def test_page_has_every_dag_and_every_kind_of_task() -> None:
    text = page()
    for name in ("patch_emergency", "patch_reconcile", "`wave_N.apply`", "`report.report`", "`plan_digest`"):
        assert name in text
