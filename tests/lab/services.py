"""What runs beside the hosts in the lab's network: the repository's web server, Prometheus, and the traffic."""

from __future__ import annotations

import json
import sys

from lab.layout import GATEWAY, PROMETHEUS_PORT, REPOSITORY_PORT, SERVICE_PORT, SOURCE, TRAFFIC_PORT, Host, Layout

SCRAPE = "1s"


def commands(layout: Layout, hosts: list[Host]) -> dict[str, list[str]]:
    """Give the command line of each service in the lab's own network, by its name."""
    python = [sys.executable, "-I", "-S", "-m", "http.server", "--bind", GATEWAY, "--protocol", "HTTP/1.1"]
    return {
        "repository": [*python, "--directory", str(layout.path("repository") / "www"), str(REPOSITORY_PORT)],
        "prometheus": prometheus(layout, GATEWAY),
        "traffic": traffic(GATEWAY, [(host.name, host.address) for host in hosts]),
    }


def outside(layout: Layout, hosts: list[Host]) -> dict[str, list[str]]:
    """Give the same on this machine's loopback addresses, for hosts that are only simulated."""
    return {
        "prometheus": prometheus(layout, layout.gateway),
        "traffic": traffic(layout.gateway, [(host.name, host.loopback) for host in hosts]),
    }


def prometheus(layout: Layout, address: str) -> list[str]:
    """Give the command line of Prometheus."""
    return [
        "prometheus", f"--config.file={layout.path('prometheus.yml')}", "--storage.tsdb.retention.time=6h",
        f"--storage.tsdb.path={layout.path('prometheus')}", f"--web.listen-address={address}:{PROMETHEUS_PORT}",
        "--log.level=warn",
    ]  # fmt: skip


def traffic(address: str, hosts: list[tuple[str, str]]) -> list[str]:
    """Give the command line of the traffic."""
    targets = [f"{name}={where}:{SERVICE_PORT}" for name, where in hosts]
    return [sys.executable, "-I", "-S", str(SOURCE / "traffic.py"), f"{address}:{TRAFFIC_PORT}", *targets]


def prometheus_config(hosts: list[Host], gateway: str = GATEWAY, *, loopback: bool = False) -> str:
    """Give Prometheus's configuration; JSON is YAML."""
    groups = [
        {
            "targets": [f"{host.loopback if loopback else host.address}:{SERVICE_PORT}"],
            "labels": {"instance": host.name, **host.labels},
        }
        for host in hosts
    ]
    jobs = [
        {"job_name": "shopfront", "static_configs": groups},
        {
            "job_name": "traffic",
            "honor_labels": True,
            "static_configs": [{"targets": [f"{gateway}:{TRAFFIC_PORT}"]}],
        },
    ]
    timing = {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE, "evaluation_interval": SCRAPE}
    return json.dumps({"global": timing, "scrape_configs": jobs}, indent=2) + "\n"
