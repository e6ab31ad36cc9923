"""The demo: a real lab fleet patched through Airflow, once with a good update and once with a bad one."""
