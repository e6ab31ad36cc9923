"""Airflow DAG file: ``patch_reconcile``, which looks after rollouts that lost their run."""

from patching_dags.reconcile import build_reconcile

dag = build_reconcile()
