"""Alertmanager's API v2: silences that are ours by their comment, opened, prolonged and ended."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from patching.channels.http_call import send
from patching.channels.service import ServiceFailed
from patching.sources.base import Clock, Connection
from patching.sources.endpoint import http_endpoint
from patching.value import JsonValue

CREATED_BY = "patching"
SKEW = timedelta(minutes=10)
"""How far our clock may be ahead: a start in the past is taken as now, one in the future would silence late."""


class AlertmanagerApi:
    """Speaks to an Alertmanager (or Mimir's, or a cluster's member).

    Calls: ``silence`` (one silence for a tag, however often it is asked for) and ``unsilence`` (ends those of a tag).
    """

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self._clock = clock
        self._endpoint = http_endpoint(connection, "the Alertmanager")
        self._timeout = 30.0

    async def ask(self, step_id: str, call: dict[str, JsonValue]) -> str:
        """Do what a call says; raises ServiceFailed."""
        self._timeout = float(call["timeout"])
        ours = await self._ours(str(call["tag"]))
        if call["op"] == "silence":
            return await self._silence(call, ours)
        for silence in ours:
            await self._request("DELETE", f"/api/v2/silence/{silence['id']}")
        return f"ended {len(ours)} silences" if ours else "no silence of ours is left: it ended by itself"

    async def _silence(self, call: dict[str, JsonValue], ours: list[dict[str, Any]]) -> str:
        now = self._clock()
        wanted = {
            "matchers": call["matchers"],
            "startsAt": (now - SKEW).isoformat(),
            "endsAt": (now + timedelta(seconds=float(call["at_most"]))).isoformat(),
            "createdBy": CREATED_BY,
            "comment": call["tag"],
        }
        if ours:
            wanted["id"] = ours[0]["id"]
            wanted["startsAt"] = ours[0]["startsAt"]
        answer = await self._request("POST", "/api/v2/silences", wanted)
        return f"silence {answer['silenceID']} until {wanted['endsAt']} at the latest"

    async def _ours(self, tag: str) -> list[dict[str, Any]]:
        found = await self._request("GET", "/api/v2/silences")
        return [
            item
            for item in found
            if item["comment"] == tag and item["createdBy"] == CREATED_BY and item["status"]["state"] != "expired"
        ]

    async def _request(self, method: str, path: str, body: JsonValue = None) -> Any:
        url = self._endpoint.url + path
        response = await send(self._endpoint, method, url, seconds=self._timeout, body=body)
        if response.status_code != 200:
            said = response.text.strip()[:200]
            raise ServiceFailed(f"the Alertmanager answered {method} {path} with {response.status_code}: {said}")
        try:
            return response.json() if response.content else None
        except ValueError as error:
            raise ServiceFailed(f"{url} does not speak Alertmanager's API v2: its answer is no JSON") from error
