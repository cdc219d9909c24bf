"""Gangs over several Ray nodes, hosts with addresses of their own: one is cut off, one is told to go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.sweep.gang.rank import interface_of
from testing.hosts import Hosts, missing, needed
from testing.ray_nodes import RayNodes, await_until
from tests.sweep.conftest import sweep_command

FIRST, LAST = 16, 800  # images


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    needed(missing())
    with Hosts("n1", "n2", "n3", "n4") as hosts:
        yield hosts


def test_an_address_leads_to_its_interface() -> None:
    assert interface_of("127.0.0.1") == "lo" and interface_of("203.0.113.1") is None


@pytest.mark.long
@pytest.mark.timeout(1800)  # Ray starts on four hosts, one after the other
def test_a_sweep_survives_the_loss_of_nodes(hosts: Hosts, tiny_spec: Path, tmp_path: Path) -> None:
    data = yaml.safe_load(tiny_spec.read_text())
    data |= {"trials": 2, "early_stopping": {"rungs": [FIRST, LAST], "rule": "none"}, "teachers": data["teachers"][:1]}
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(data))
    folder, log = tmp_path / "runs" / "tiny", tmp_path / "output.txt"

    def trial(number: int) -> dict[str, Any]:
        (path,) = folder.glob(f"trials/{number:02}-*.json")
        content: dict[str, Any] = json.loads(path.read_text())
        return content

    def rung_reported(number: int) -> bool:
        return bool(list(folder.glob(f"trials/{number:02}-*.json")) and trial(number)["rungs"])

    def on(*names: str) -> list[str]:
        return sorted(hosts.addresses[name] for name in names)

    with RayNodes(hosts) as nodes:
        nodes.join("n2")
        nodes.joined(2)
        sweep = nodes.run(sweep_command(spec, tmp_path), tmp_path)
        await_until(lambda: rung_reported(1), sweep, log)
        assert sorted(trial(1)["rungs"][0]["hosts"]) == on("n1", "n2")

        hosts.cut("n2")
        nodes.join("n3")
        await_until(lambda: rung_reported(2), sweep, log)
        assert sorted(trial(2)["rungs"][0]["hosts"]) == on("n1", "n3")

        nodes.terminate("n3")
        await_until(lambda: trial(2)["images_seen"] > FIRST, sweep, log)
        saved = trial(2)
        assert FIRST < saved["checkpoint"]["images_seen"] < LAST and len(saved["rungs"]) == 1
        hosts.cut("n3")
        nodes.join("n4")
        assert sweep.wait(600) == 0, log.read_text()

    for number in (1, 2):
        record, gone = trial(number), {hosts.addresses["n2"]} | ({hosts.addresses["n3"]} if number == 2 else set())
        assert record["status"] == "finished" and [rung["images_seen"] for rung in record["rungs"]] == [FIRST, LAST]
        last = record["rungs"][-1]["hosts"]
        assert len(set(last)) == 2 and hosts.addresses["n1"] in last and not gone & set(last)
    assert json.loads((folder / "front.json").read_text())["students"]
