"""A load report without flaws, and others that differ in what a test is about."""

from __future__ import annotations

import msgspec

from crossgate.cli.load import LoadReport

GOOD = {
    "requests_per_s": 100.0,
    "window_s": 1.0,
    "requests": 100,
    "outcomes": {"OK": 100},
    "latency_us": {
        "count": 100, "mean": 5.0, "p50": 5.0, "p90": 6.0, "p95": 7.0, "p99": 8.0, "p99.9": 9.0, "max": 9.0,
    },
    "unexpected": 0,
    "errors": [],
    "cancelled": {"sent": 0, "answered_first": 0},
    "malformed": {"sent": 0, "rejected": 0, "outcomes": {}},
    "sent_bytes": 1000,
    "received_bytes": 8000,
    "bodies": [
        {"size_bytes": 5, "malformed": False, "ok": 100, "answer_bytes_min": 80, "answer_bytes_max": 80}
    ],
    "sampled_bodies": [],
    "sent_in_all": 120,
    "ok_in_all": 120,
    "warm_up": {"unexpected": 0},
    "schedule": None,
    "connections": {"max_streams": None, "lost": 0, "last_failure": None},
    "generator": {"cpu_us_per_request": 2.0, "cpu_share": 0.1},
    "series": [],
}  # fmt: skip


def report(**changes):
    return msgspec.convert({**GOOD, **changes}, LoadReport)
