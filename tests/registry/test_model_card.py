"""What a version says of itself, and which aliases it gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.evaluation.anchor import Anchor
from orchestrator.evaluation.metric import CurvePoint
from orchestrator.registry.facts import read_facts
from orchestrator.registry.model_card import LONGEST, described, model_card, summary
from orchestrator.registry.names import best_of, version_tags
from orchestrator.registry.plot import rate_distortion
from orchestrator.registry.trial_log import bundle_metrics, coded_metrics, params
from orchestrator.results.anchor import ANCHOR, AnchorFile
from orchestrator.results.bundles import costs_file
from orchestrator.results.files import write_file
from orchestrator.results.format import FormatError
from orchestrator.results.front import CANDIDATES, Candidates
from orchestrator.results.versions import VERSIONS, Versions
from orchestrator.spec.load import dump, load_spec
from orchestrator.spec.spec import Spec
from orchestrator.store.store import Store
from testing.records import record, rung
from tests.results.builders import coded_student, coding_costs

ROOT = Path(__file__).parents[2]
SWEEP = "c" * 64


def curve(shift: float) -> tuple[CurvePoint, ...]:
    return tuple(CurvePoint(rate_point=i, bpp=0.1 * (i + 1) + shift, psnr_db=28.0 + 2 * i, mse=1e-3) for i in range(4))


ANCHOR_OF_A_TEACHER = Anchor(
    teacher="large",
    weights="e" * 64,
    rate_points=(0, 1, 2, 3),
    curve=tuple((point.bpp, point.psnr_db) for point in curve(0.01)),
    lambdas=(0.1, 0.2, 0.3, 0.4),
    at_lambdas=((0.1, 1.0),) * 4,
)
STUDENT = coded_student(
    teacher="large",
    bd_rate_pct=-3.25,
    estimated_bd_rate_pct=-3.5,
    points=curve(0.0),
    overlap=0.9,
    interval_db=(28.0, 34.0),
)
RECORD = record(STUDENT.trial_id, [rung(1024, -3.5, points=curve(-0.0123))], seed=7)


@pytest.fixture
def run(tmp_path: Path) -> Store:
    """A run folder with what a card is made from."""
    run = Store(tmp_path / "quick")
    spec: Spec = load_spec(ROOT / "jobs/specs/quickstart.yaml")
    run.replace("spec.yaml", dump(spec.resolved(ROOT)).encode())
    digests = {"train": ["1" * 64, "2" * 64], "validation": ["3" * 64]}
    run.replace("inputs.json", json.dumps({"photographs": digests}).encode())
    write_file(run, VERSIONS, Versions(python="3.11", platform="here", git_revision="0123abc", libraries={}))
    anchor = AnchorFile(anchor=ANCHOR_OF_A_TEACHER, digest=ANCHOR_OF_A_TEACHER.digest, mean_log_lagrangian={})
    write_file(run, ANCHOR, anchor)
    write_file(run, CANDIDATES, Candidates(students=(STUDENT,)))
    return run


def test_a_card_says_what_figures_are_of_and_against(run: Store) -> None:
    facts = read_facts(run, SWEEP)
    card = model_card(STUDENT, RECORD, facts, "models:/quick@best-bd-rate")
    assert "**-3.25 %** from real bitstreams" in card and "-3.50 % from estimated rates" in card
    assert f"teacher large on the same validation crops, over PSNR:\nweights SHA-256 `{'e' * 64}`" in card
    assert ANCHOR_OF_A_TEACHER.digest in card and "Compared from 28.00 to 34.00 dB, 90 %" in card
    assert "| rate | bpp, coded |" in card and "| 0 | 0.1000 | 28.00 |" in card
    assert "| rate | bpp, estimated |" in card and "| 0 | 0.0877 | 28.00 |" in card
    train, validation = facts.datasets
    for part in (
        train.digest,
        validation.digest,
        SWEEP,
        "0123abc",
        "Apache-2.0",
        "| seed | 7 |",
        "| images seen | 1,024 |",
    ):
        assert part in card
    use = card.partition("## How to use it")[2].partition("##")[0]
    assert "lic decode --model 'models:/quick@best-bd-rate'" in use and len(use.strip().splitlines()) == 6
    assert summary(STUDENT, facts) in card and "against teacher large" in summary(STUDENT, facts)
    assert "ONNX Runtime" not in card and "megapixel" not in card  # its bundle was not timed


def test_a_card_says_what_coding_with_the_bundle_takes_and_on_what(run: Store) -> None:
    name = costs_file(STUDENT.trial_id, STUDENT.weights_digest)
    for peak in (140.04, None):
        write_file(run, name, coding_costs(peak_memory_mb=peak))
        card = model_card(STUDENT, RECORD, read_facts(run, SWEEP), "models:/quick@best-bd-rate")
        said = card.partition("## What it costs")[2].partition("##")[0]
        assert (
            "by one thread of AMD EPYC, other work beside it: a photograph of 384x320 pixels, 12 times in all" in said
        )
        assert "| encoding | 100 | 90 to 120 |" in said and "| decoding | 130 | 110 to 150 |" in said
        assert ("Peak memory of coding it: 140 MB" in said) == (peak is not None) and "None" not in card
    other = STUDENT.model_copy(update={"weights_digest": "1" * 64})
    assert "megapixel" not in model_card(other, None, read_facts(run, SWEEP), "models:/m/1")


def test_costs_of_a_bundle_are_metrics_and_tags() -> None:
    assert bundle_metrics(coding_costs()) == {
        "bundle_encode_ms_per_megapixel": 100.25,
        "bundle_encode_ms_per_megapixel_lower_quartile": 90.0,
        "bundle_encode_ms_per_megapixel_upper_quartile": 120.0,
        "bundle_decode_ms_per_megapixel": 130.0,
        "bundle_decode_ms_per_megapixel_lower_quartile": 110.0,
        "bundle_decode_ms_per_megapixel_upper_quartile": 150.0,
        "bundle_peak_memory_mb": 140.04,
    }
    assert bundle_metrics(None) == {} and "bundle_peak_memory_mb" not in bundle_metrics(
        coding_costs(peak_memory_mb=None)
    )
    tags, without = version_tags(STUDENT, coding_costs()), version_tags(STUDENT, None)
    assert {name: tags[name] for name in tags.keys() - without.keys()} == {
        "bundle_encode_ms_per_megapixel": "100.2",
        "bundle_decode_ms_per_megapixel": "130.0",
        "bundle_peak_memory_mb": "140.0",
        "bundle_measured_on": "AMD EPYC",
    }


def test_a_card_leaves_out_what_is_not_known(tmp_path: Path) -> None:
    card = model_card(coded_student(), None, read_facts(Store(tmp_path), SWEEP), "models:/m/1")
    assert not {word for word in ("None", "nan", "estimated |", "photographs,") if word in card}


def test_a_description_fits_into_mlflow_s_database() -> None:
    assert described("# a\n![plot](it)\nb") == "# a\nb"
    assert len(described("x" * 2 * LONGEST)) <= LONGEST


def test_a_plot_has_all_curves_and_equal_bytes(run: Store) -> None:
    facts = read_facts(run, SWEEP)
    plots = [rate_distortion(STUDENT, trial, facts) for trial in (RECORD, RECORD, None)]
    assert plots[0] == plots[1] != plots[2] and plots[0].count("<svg") == 1


def test_runs_have_hyperparameters_data_and_coded_figures(run: Store) -> None:
    facts = read_facts(run, SWEEP)
    logged = params(RECORD, facts)
    assert facts.spec is not None and logged["training_learning_rate"] == str(facts.spec.training.learning_rate)
    assert logged["rate_ladder_lambdas"].startswith("[0.0018") and logged["student_N"] == "8"
    assert coded_metrics(STUDENT)["coded_bpp_rate_0"] == 0.1 and coded_metrics(STUDENT)["coded_bd_rate_pct"] == -3.25
    assert [len(data.digests) for data in facts.datasets] == [2, 1]


def test_inputs_that_name_no_photographs_are_one_line(run: Store) -> None:
    run.replace("inputs.json", b"[]")
    with pytest.raises(FormatError, match=r"^file://[^\n]*inputs.json: it does not name the sweep's photographs$"):
        read_facts(run, SWEEP)


def test_aliases_go_to_the_ends_and_the_middle_of_the_front() -> None:
    def student(name: str, rate: float | None, encoder: float, decoder: float) -> object:
        macs = {"encoder_macs_per_pixel": encoder, "decoder_macs_per_pixel": decoder}
        return coded_student(trial_id=name, bd_rate_pct=rate, macs_per_pixel=encoder + decoder, **macs)

    front = [
        student("1", 60.0, 100.0, 900.0),
        student("2", 20.0, 1000.0, 1000.0),  # 2000 of 1000 to 100,000: 0.15 of the way in logarithms
        student("3", 10.0, 9000.0, 500.0),
        student("4", 0.0, 50_000.0, 50_000.0),
        student("5", None, 10_000.0, 90_000.0),
    ]
    assert best_of(front) == {  # type: ignore[arg-type]
        "best-bd-rate": "4",
        "fastest": "1",
        "balanced": "2",
        "encoder-smallest": "1",
        "decoder-smallest": "3",
    }
    assert set(best_of(front[:1]).values()) == {"1"} and best_of([]) == {}  # type: ignore[arg-type]
