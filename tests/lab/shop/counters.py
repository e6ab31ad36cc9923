"""What the shop counts, as Prometheus reads it."""

import bisect
import threading

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class Counters:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.requests = 0
        # Every series exists from the start: a rate over a series that appears later loses its first step.
        self.codes: dict[int, int] = {200: 0, 500: 0}
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    def begin(self) -> int:
        with self.lock:
            self.requests += 1
            return self.requests

    def end(self, code: int, seconds: float) -> None:
        with self.lock:
            self.codes[code] = self.codes.get(code, 0) + 1
            self.buckets[bisect.bisect_left(BOUNDS, seconds)] += 1
            self.seconds += seconds

    def text(self, version: str) -> str:
        with self.lock:
            lines = ["# TYPE http_requests_total counter"]
            lines += [f'http_requests_total{{code="{code}"}} {count}' for code, count in sorted(self.codes.items())]
            lines.append("# TYPE http_request_duration_seconds histogram")
            total = 0
            for bound, count in zip((*BOUNDS, "+Inf"), self.buckets, strict=True):
                total += count
                lines.append(f'http_request_duration_seconds_bucket{{le="{bound}"}} {total}')
            lines.append(f"http_request_duration_seconds_sum {self.seconds:.6f}")
            lines.append(f"http_request_duration_seconds_count {total}")
        lines += ["# TYPE shopfront_info gauge", f'shopfront_info{{version="{version}"}} 1', ""]
        return "\n".join(lines)
