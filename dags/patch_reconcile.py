"""Airflow DAG file: ``patch_reconcile`` looks every two minutes after rollouts that no run works on."""

from patching_dags.reconcile import build_reconcile

dag = build_reconcile()
