"""A trial's file: it reads back equal, and a file of another version is refused in one line."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from orchestrator.evaluation.metric import CurvePoint
from orchestrator.results.format import FormatError
from orchestrator.spec.loss import Loss
from orchestrator.trials.record import Checkpoint, Decision, TrialRecord
from testing.records import record, rung

DECISION = Decision(
    action="continue",
    rung=8,
    sequence=0,
    bracket=0,
    measure="bd_rate_pct",
    invalid=0,
    invalid_reason=None,
    place=1,
    places=1,
    reported=1,
)
FULL = record(
    "03-a",
    [
        rung(8, -1.5, points=(CurvePoint(rate_point=0, bpp=0.1, psnr_db=30.0, mse=1e-3),), decision=DECISION),
        rung(16, -2.5, interval_db=(30.0, 34.0), mended=("an object",)),
    ],
    loss=Loss(latent=0.1),
    teacher="a",
    choices={"loss": 1, "losses.1.latent": 0.1, "teacher": "a"},
    checkpoint=Checkpoint(images_seen=16, path="checkpoints/03-a/16-token", files={"state": "0"}),
)


def test_a_record_reads_back_equal() -> None:
    data = FULL.to_json()
    assert TrialRecord.from_json(data, "file") == FULL and FULL.trial.loss == Loss(latent=0.1)
    content = json.loads(data)
    assert content["format"] == 4 and content["loss"] == {"latent": 0.1}
    assert ["decision" in rung_ for rung_ in content["rungs"]] == [True, False]


def test_an_error_is_of_a_trial_that_failed() -> None:
    assert FULL.changed(status="lost", error="died").broken
    for fields in ({"status": "failed"}, {"error": "died"}, {"status": "saved", "error": "died"}, {"status": "gone"}):
        with pytest.raises(ValidationError):
            FULL.changed(**fields)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"format": 3}, "format 3, but this version reads format 4: "),
        ({"format": None}, "no format number, but this version reads format 4: "),
        ({"params": "10"}, "params: Input should be a valid integer"),
        ({"left": "token"}, "left: Extra inputs are not permitted"),
        ({"status": "gone"}, "status: Input should be "),
        ({"error": "died"}, "the whole file: Value error, an error for the status failed or lost, and for no other"),
    ],
)
def test_a_file_that_is_no_such_record_is_one_line(change: dict[str, object], line: str) -> None:
    data = json.dumps(json.loads(FULL.to_json()) | change).encode()
    with pytest.raises(FormatError) as caught:
        TrialRecord.from_json(data, "file:///run/trials/03-a.json")
    assert str(caught.value).startswith(f"file:///run/trials/03-a.json: {line}") and "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b'{"format":', b"\xff"])
def test_a_damaged_file_is_one_line(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"^trials/03-a\.json: no JSON, or cut off: [^\n]*$"):
        TrialRecord.from_json(data, "trials/03-a.json")
