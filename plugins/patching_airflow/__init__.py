"""The adapters: they connect the domain to Airflow 3.3 and decide nothing."""
