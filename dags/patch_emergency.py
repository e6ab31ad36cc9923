"""Airflow DAG file: ``patch_emergency``, the only way past a window or freeze, with a permission of its own."""

from patching_dags.emergency import build_emergency

dag = build_emergency()
