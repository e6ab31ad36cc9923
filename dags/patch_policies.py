"""Airflow DAG file: every policy in the policies folder becomes a DAG; a task's start builds only its own."""

from airflow.sdk import get_parsing_context

from patching_airflow.site import policies_dir
from patching_dags.policy_files import dags

for dag in dags(policies_dir(__file__), only=get_parsing_context().dag_id):
    globals()[dag.dag_id] = dag
