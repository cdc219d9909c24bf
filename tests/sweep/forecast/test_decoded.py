"""When the nodes' caches keep shards decoded, and what a plan says and predicts of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.sweep.forecast.decoded import DecodedCache
from orchestrator.sweep.forecast.forecast import forecast
from orchestrator.sweep.forecast.text import lines
from tests.sweep.forecast.test_forecast import MEASURED, WORK

ROOM = int(2.5 * 100 * (1000 + 1000))  # decoded, of 100 crops: 1,000 bytes of pixels and of the teacher's taps each


@pytest.mark.parametrize(("limit", "fits"), [(ROOM, True), (ROOM - 1, False)])
def test_shards_are_kept_decoded_where_all_of_a_trials_have_room(limit: int, fits: bool) -> None:
    decoding = DecodedCache(nodes=3, limit_bytes=limit, crops=100)
    assert decoding.fits(MEASURED.fills) == fits
    work = replace(WORK, decoding=decoding)
    assert decoding.line(MEASURED.fills) in lines(work, MEASURED)
    assert decoding.line(MEASURED.fills).endswith("kept decoded" if fits else "kept as they are stored")
    # each node reads an object once for all trials, of a store in a folder too
    read = forecast(work, MEASURED, "most").bytes.features_read
    assert read == forecast(replace(WORK, caches=3 if fits else None), MEASURED, "most").bytes.features_read
    assert (read == forecast(WORK, MEASURED, "most").bytes.features_read) != fits


def test_of_several_teachers_the_one_with_the_most_decides() -> None:
    second = MEASURED.fills[1].model_copy(update={"title": "teacher b", "tap_bytes": {"y": 5000}})
    line = DecodedCache(nodes=1, limit_bytes=10**9, crops=10**6).line((*MEASURED.fills, second))
    assert (
        line == "node_cache.gigabytes: 1; room for 15 GB of decoded shards is needed: they are kept as they are stored"
    )
