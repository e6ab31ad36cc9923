"""The Patching pages in Airflow: a static page and a read-only API, both behind ``ui/security.py``."""
