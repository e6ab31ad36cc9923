"""A lab of real Debian hosts without Docker: what the fault tests and the demo run against."""

from lab.api import Lab, Ran
from lab.layout import Host, LabError, Layout
from lab.preflight import Problem, install_tools, preflight

__all__ = ["Host", "Lab", "LabError", "Layout", "Problem", "Ran", "install_tools", "preflight"]
