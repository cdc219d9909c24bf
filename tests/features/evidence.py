"""What tests of faults look at: what readers hand out, what a proxy's log says, and a table of what was seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from orchestrator.features.read.batch import Batch
from orchestrator.features.read.node_cache import NodeCache
from orchestrator.features.read.reader import Reader
from tests.features.filler import Work

BATCH_SIZE = 16


def reader(work: Work, url: str, cache: NodeCache | None) -> Reader:
    return Reader(url, work.plan, work.feature_plans, rank=0, world=1, batch_size=BATCH_SIZE, seed=0, cache=cache)


def read(work: Work, url: str, cache: NodeCache | None) -> list[Batch]:
    """Reads all crops once."""
    opened = reader(work, url, cache)
    try:
        return [opened.batch(step) for step in range(len(work.plan.crops) // BATCH_SIZE)]
    finally:
        opened.close()


def equal(one: Sequence[Batch], other: Sequence[Batch]) -> bool:
    """Whether pixels, rate points and targets are equal bit for bit."""
    return len(one) == len(other) and all(
        a.rate_point == b.rate_point
        and torch.equal(a.x, b.x)
        and a.targets.keys() == b.targets.keys()
        and all(torch.equal(a.targets[tap], b.targets[tap]) for tap in a.targets)
        for a, b in zip(one, other, strict=True)
    )


def published(requests: Sequence[dict[str, Any]], root: str) -> Counter[str]:
    """How often the server took an object of features as new, by name under `root`, a path."""
    return Counter(
        request["path"].removeprefix(f"{root}/")
        for request in requests
        if request["method"] == "PUT"
        and request["server_status"] == 200
        and request["path"].startswith(f"{root}/features/")
    )


def disturbed(requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Requests that were answered otherwise than the server would have, or not at all."""
    return [request for request in requests if request["fault"] is not None or request["status"] in (None, 502)]


def lost(requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The disturbed requests whose answer the client needs: for the others a status such as "not found" is enough."""
    return [
        request
        for request in disturbed(requests)
        if request["status"] in (None, 502, 503)
        or (request["fault"] in ("cut", "corrupt") and request["status"] == 200)
    ]


def repeated(requests: Sequence[dict[str, Any]]) -> int:
    """How many of the lost requests were sent again."""
    last: dict[tuple[str, str], float] = {}
    for request in requests:
        place = request["method"], request["path"]
        last[place] = max(last.get(place, 0.0), request["started"])
    return sum(last[request["method"], request["path"]] > request["started"] for request in lost(requests))


class Table:
    """What was seen, a row a fault; printed when a module's tests have ended."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []

    def add(self, record_property: Callable[[str, object], None], row: dict[str, Any]) -> None:
        for name, value in row.items():
            record_property(name, value)
        self._rows.append(row)

    def show(self, request: pytest.FixtureRequest) -> None:
        """Prints the table past pytest's capture."""
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print()
            for row in self._rows:
                print("; ".join(f"{name}: {value}" for name, value in row.items()))


class Record:
    """Adds one test's row to the table; of a run behind a proxy with the figures of its log."""

    def __init__(self, table: Table, record_property: Callable[[str, object], None]) -> None:
        self._table, self._record_property = table, record_property

    def __call__(self, fault: str, requests: Sequence[dict[str, Any]] = (), **seen: Any) -> None:
        of_log: dict[str, Any] = {}
        if requests:
            late = sum(request["fault"] == "latency" for request in requests)
            faults = len(
                disturbed(
                    [request for request in requests if request["fault"] != "latency" or request["status"] is None]
                )
            )
            of_log = {"requests": len(requests), "late": late, "faults": faults, "repeated": repeated(requests)}
        self._table.add(self._record_property, {"fault": fault} | of_log | seen)
