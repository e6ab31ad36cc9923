"""Metrics of a policy that do not come from Prometheus: values in a database, and in the JSON answer of a service."""

from __future__ import annotations

import re
from typing import ClassVar

from patching.policy_hooks import ConnectionId
from patching.quantity import Duration
from patching.value import CamelValue

FEWEST_VALUES = 5
"""Values of a gauge after the change below which nothing is promoted on it."""


SQL_PARAMETERS = ("targets", "start", "end")
_PARAMETER = re.compile(r"(?<![:\w\\]):(\w+)(?!:)")


def parameters(query: str) -> tuple[str, ...]:
    """Give the names of a query's parameters (``:name``), each once; a cast with ``::`` is none."""
    return tuple(dict.fromkeys(_PARAMETER.findall(query)))


class SqlCheck(CamelValue):
    """A gauge in a database: ``query`` gives rows ``target, time, value`` for ``:targets`` from ``:start`` to ``:end``.

    ``target`` says what the rows call a target.
    """

    connection: ConnectionId
    query: str
    target: str = "{name}"
    before: Duration = 3600.0

    gauge: ClassVar[bool] = True
    history: ClassVar[bool] = True

    @property
    def series(self) -> dict[str, str]:
        """How a target is found in the rows."""
        return {"target": self.target}


class HttpJsonCheck(CamelValue):
    """A gauge in the JSON answer of a service; it has no past, so it is asked ``every`` so often during the rollout.

    ``url`` is a path under the connection, or a whole URL without one; ``pointer`` (RFC 6901) is the number's place.
    """

    connection: ConnectionId | None = None
    url: str
    pointer: str
    every: Duration = 30.0
    timeout: Duration = 5.0
    before: Duration = 3600.0

    gauge: ClassVar[bool] = True
    history: ClassVar[bool] = False
