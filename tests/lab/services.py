"""What runs beside the hosts in the lab's network: the repository's web server, Prometheus, and the traffic."""

from __future__ import annotations

import json
import sys

from lab.layout import GATEWAY, PROMETHEUS_PORT, REPOSITORY_PORT, SERVICE_PORT, SOURCE, TRAFFIC_PORT, Host, Layout

SCRAPE = "1s"


def commands(layout: Layout, hosts: list[Host]) -> dict[str, list[str]]:
    """Give the command line of each service, by its name."""
    python = [sys.executable, "-I", "-S"]
    targets = [f"{host.name}={host.address}:{SERVICE_PORT}" for host in hosts]
    return {
        "repository": [
            *python, "-m", "http.server", "--bind", GATEWAY, "--protocol", "HTTP/1.1",
            "--directory", str(layout.path("repository") / "www"), str(REPOSITORY_PORT),
        ],
        "prometheus": [
            "prometheus", f"--config.file={layout.path('prometheus.yml')}", "--storage.tsdb.retention.time=6h",
            f"--storage.tsdb.path={layout.path('prometheus')}", f"--web.listen-address={GATEWAY}:{PROMETHEUS_PORT}",
            "--log.level=warn",
        ],
        "traffic": [*python, str(SOURCE / "traffic.py"), f"{GATEWAY}:{TRAFFIC_PORT}", *targets],
    }  # fmt: skip


def prometheus_config(hosts: list[Host]) -> str:
    """Give Prometheus's configuration; JSON is YAML."""
    groups = [
        {"targets": [f"{host.address}:{SERVICE_PORT}"], "labels": {"instance": host.name, **host.labels}}
        for host in hosts
    ]
    jobs = [
        {"job_name": "shopfront", "static_configs": groups},
        {
            "job_name": "traffic",
            "honor_labels": True,
            "static_configs": [{"targets": [f"{GATEWAY}:{TRAFFIC_PORT}"]}],
        },
    ]
    timing = {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE, "evaluation_interval": SCRAPE}
    return json.dumps({"global": timing, "scrape_configs": jobs}, indent=2) + "\n"
