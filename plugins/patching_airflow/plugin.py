"""The Airflow plugin: the timetable, the Patching pages and their read-only API."""

from airflow.plugins_manager import AirflowPlugin

from patching_airflow.timetables.maintenance_window import MaintenanceWindowTimetable
from patching_airflow.ui.views import EXTERNAL_VIEWS, FASTAPI_APPS


class PatchingPlugin(AirflowPlugin):
    """Found through the entry point ``airflow.plugins``; nothing needs to lie in the plugins folder."""

    name = "patching"
    timetables = [MaintenanceWindowTimetable]  # noqa: RUF012
    fastapi_apps = FASTAPI_APPS
    external_views = EXTERNAL_VIEWS
