"""A whole sweep over encoders and decoders, in a process of its own: halves, pairs, one bitstream for all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.bitstream import prepare_for_coding
from models.ladder import joined
from models.weights import digest, load_ladder, read_metadata
from orchestrator.evaluation.rate_distortion import coded, curve
from orchestrator.photographs.crops import validation_crops
from orchestrator.photographs.photos import Photograph
from orchestrator.results.files import needed
from orchestrator.results.front import FRONT, Front
from orchestrator.results.interchange import INTERCHANGE, Interchange
from orchestrator.results.shelf import SHELF, ShelfFile
from orchestrator.spec.sections import Validation
from orchestrator.store.store import Store
from orchestrator.sweep.front.anchor import pictures
from orchestrator.trials.files import read_trials
from tests.sweep.conftest import printed, start_sweep

pytestmark = pytest.mark.slow  # a whole sweep


@pytest.fixture(scope="module")
def spec(tiny_spec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two encoders and two decoders, of which the pairs on the front are trained on."""
    data: dict[str, Any] = yaml.safe_load(tiny_spec.read_text())
    del data["students"]
    data |= {
        "trials": 4,
        "teachers": [data["teachers"][0]],
        "encoders": [{"family": "hyperprior", "N": N} for N in (24, 48)],
        "decoders": [{"family": "hyperprior", "N": N} for N in (24, 48)],
        "losses": [{"preset": "inherit-apart", "refit": {"criterion": "activation", "crops": 32}}],  # soon made
        "crops": {"count": 64, "size": 128},
        "validation": {"crops": 2, "size": 256},
        "shelf": {"joined": 2, "share": 0.5},
        "training": {"batch_size": 8, "ranks_per_trial": 1, "learning_rate": 1e-4},
        "early_stopping": {"rungs": [32, 64], "rule": "none"},
        "candidates": 3,
    }
    path = tmp_path_factory.mktemp("spec") / "shelf.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.fixture(scope="module")
def finished(spec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shelf")
    assert start_sweep(spec, folder).wait(500) == 0, printed(folder)
    return folder


@pytest.fixture
def run(finished: Path) -> Store:
    return Store(finished / "runs" / "tiny")


def test_halves_are_trained_by_themselves_and_pairs_of_them_joined(run: Store) -> None:
    records = read_trials(run)
    halves = [record for record in records if record.student.half]
    assert [record.trial_id[:13] for record in halves] == [
        "01-encoder-n2",
        "02-decoder-n2",
        "03-encoder-n4",
        "04-decoder-n4",
    ]
    assert all(record.images_seen == 64 and record.status == "finished" for record in halves)
    for record in halves:
        own = "distortion" if record.student.half == "decoder" else "latent"
        assert own in record.rungs[0].losses and "bpp" not in record.rungs[0].losses
    shelf = needed(run, SHELF, ShelfFile)
    assert len(shelf.pairs) == 4 + 4 and all(pair.bd_rate_pct is not None for pair in shelf.pairs)
    whole = [record for record in records if record.pair]
    assert [record.trial_id for record in whole] == sorted(pair.joined for pair in shelf.pairs if pair.joined)
    assert whole and all(record.images_seen == 32 and record.status == "finished" for record in whole)
    by_id = {record.trial_id: record for record in records}
    for record in whole:
        encoder, decoder = (by_id[name] for name in record.pair or ())
        assert (record.student.encoder_N, record.student.N) == (encoder.student.encoder_N, decoder.student.N)
        described = read_metadata(run.folder / str(record.weights))  # type: ignore[operator]
        assert (described.encoder_N, described.N) == (record.student.encoder_N, record.student.N)


def test_a_pair_is_scored_as_its_halves_put_together(
    run: Store, validation_photographs: tuple[Photograph, ...]
) -> None:
    from orchestrator.evaluation.rate_distortion import estimate

    weights = {record.trial_id: run.folder / str(record.weights) for record in read_trials(run)}  # type: ignore[operator]
    pair = next(pair for pair in needed(run, SHELF, ShelfFile).pairs if pair.encoder and pair.decoder)
    ladder = joined(*(load_ladder(weights[str(name)]) for name in pair.halves))
    seen = pictures(validation_crops(validation_photographs, Validation(crops=2, size=256)))
    expected = curve(estimate(ladder, seen, range(5)))
    for own, other in zip(pair.points, expected, strict=True):
        assert own.bpp == pytest.approx(other.bpp, rel=1e-5) and own.psnr_db == pytest.approx(other.psnr_db, abs=1e-3)


def test_every_stream_of_the_front_through_every_decoder_is_what_is_stated(
    run: Store, validation_photographs: tuple[Photograph, ...]
) -> None:
    front = needed(run, FRONT, Front).students
    assert len(front) > 1 and len({student.entropy_id for student in front}) == 1
    interchange = needed(run, INTERCHANGE, Interchange)
    assert len(interchange.exchanges) == len(front) ** 2
    stated = {(entry.encoder, entry.decoder): entry for entry in interchange.exchanges}
    seen = pictures(validation_crops(validation_photographs, Validation(crops=2, size=256)))
    ladders = {student.trial_id: load_ladder(run.folder / student.weights) for student in front}  # type: ignore[operator]
    for (encoder, decoder), entry in stated.items():
        pair = prepare_for_coding(joined(ladders[encoder], ladders[decoder]))
        points = curve(coded(pair, seen, range(5)))
        assert [point.bpp for point in entry.points] == [point.bpp for point in points]
        assert [point.psnr_db for point in entry.points] == pytest.approx([point.psnr_db for point in points], abs=1e-3)
    for student in front:
        own = stated[student.trial_id, student.trial_id]
        assert [point.psnr_db for point in own.points] == [point.psnr_db for point in student.points]


def test_the_registry_names_the_halves_and_the_entropy_model(run: Store) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{run.folder}/mlflow.db")
    (model,) = client.search_registered_models()
    front = needed(run, FRONT, Front).students
    smallest = min(front, key=lambda student: student.decoder_macs_per_pixel)
    version = client.get_model_version_by_alias(model.name, "decoder-smallest")
    assert version.tags["trial_id"] == smallest.trial_id and version.tags["entropy_id"] == smallest.entropy_id
    assert version.tags["decoder"] == f"hyperprior-n{smallest.student.N}"
    best = client.get_model_version_by_alias(model.name, "best-bd-rate")
    assert best.tags["trial_id"] == min(front, key=lambda student: student.bd_rate_pct or 0.0).trial_id


def test_the_report_shows_the_shelf(run: Store) -> None:
    page = run.read("report.html").decode()
    assert "Shelf: every encoder with every decoder" in page and "the sum was off by" in page


def test_a_finished_shelf_is_left_as_it_is(spec: Path, finished: Path, run: Store) -> None:
    before = {name: digest(run.folder / name) for name in ("shelf.json", "interchange.json", "front.json")}  # type: ignore[operator]
    assert start_sweep(spec, finished).wait(120) == 0, printed(finished)
    assert "finished before" in printed(finished)
    assert before == {name: digest(run.folder / name) for name in before}  # type: ignore[operator]
    assert json.loads(run.read("account.json"))["finished"]
