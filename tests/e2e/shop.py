"""The shop's own numbers for the end-to-end tests: a page of JSON behind a password, and a database with a past."""

from __future__ import annotations

import base64
import json
import random
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from servers.status import Answer, Status, status_server

LOGIN, PASSWORD = "reader", "wonder-and-rain"
PAST, FUTURE = 120, 3600
CHECKS = """
    - name: waiting-orders
      httpJson: {connection: shop_status, url: /hosts, pointer: "/queues/{name}/waiting", every: 10s}
      onInconclusive: promote
    - name: open-carts
      sql:
        connection: shop_db
        before: 60s
        query: |
          SELECT host AS target, at AS time, open AS value FROM carts
          WHERE host IN :targets AND at > :start AND at <= :end
"""


@dataclass
class Shop:
    """Every host has about 50 waiting orders and open carts; ``refused`` counts those who came without the password."""

    status: Status
    database: Path
    refused: int = 0

    def connections(self) -> dict[str, str]:
        """Give Airflow's connections to both, as environment variables."""
        page = {"conn_type": "http", "host": "127.0.0.1", "port": self.status.port}
        return {
            "AIRFLOW_CONN_SHOP_STATUS": json.dumps({**page, "login": LOGIN, "password": PASSWORD}),
            "AIRFLOW_CONN_SHOP_DB": json.dumps({"conn_type": "sqlite", "host": str(self.database)}),
        }

    def answer(self, hosts: Sequence[str]) -> Answer:
        """Answer who gives the password."""
        given = self.status.headers.get("Authorization", "")
        if given != f"Basic {base64.b64encode(f'{LOGIN}:{PASSWORD}'.encode()).decode()}":
            self.refused += 1
            return 401, b""
        queues = {host: {"waiting": about_fifty()} for host in hosts}
        return 200, json.dumps({"queues": queues}).encode()

    def fill(self, hosts: Sequence[str]) -> None:
        """Write a row a second for every host: of the time before, and of all the time that the tests may take."""
        now = int(time.time())
        with closing(sqlite3.connect(self.database)) as kept, kept:
            kept.execute("CREATE TABLE carts (host TEXT, at REAL, open REAL)")
            rows = ((host, at, about_fifty()) for host in hosts for at in range(now - PAST, now + FUTURE))
            kept.executemany("INSERT INTO carts VALUES (?, ?, ?)", rows)
            kept.execute("CREATE INDEX carts_by_host ON carts (host, at)")


def about_fifty() -> float:
    """Draw a number of a healthy host."""
    return 50 * random.lognormvariate(0, 0.05)


@contextmanager
def open_shop(folder: Path, hosts: Sequence[str]) -> Iterator[Shop]:
    """Run the page and write the database, for these hosts."""
    with status_server() as status:
        shop = Shop(status, folder / "shop.db")
        status.answer = lambda _path: shop.answer(hosts)
        shop.fill(hosts)
        yield shop
