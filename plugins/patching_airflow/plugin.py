"""The Airflow plugin: the timetable, the Patching pages and their read-only API."""

from airflow.plugins_manager import AirflowPlugin

from patching_airflow.timetables.maintenance_window import MaintenanceWindowTimetable
from patching_airflow.ui.app import create_app


class PatchingPlugin(AirflowPlugin):
    """Found through the entry point ``airflow.plugins``; nothing needs to lie in the plugins folder."""

    name = "patching"
    timetables = [MaintenanceWindowTimetable]  # noqa: RUF012
    fastapi_apps = [{"app": create_app(), "url_prefix": "/patching", "name": "patching"}]  # noqa: RUF012
    external_views = [  # noqa: RUF012
        {
            "name": "Patching",
            "href": "/patching/page/run/{DAG_ID}/{RUN_ID}",
            "destination": "dag_run",
            "url_route": "patching",
        },
        {"name": "Patching", "href": "/patching/page/overview", "destination": "nav", "url_route": "patching_overview"},
    ]
