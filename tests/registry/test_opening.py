"""What the command line opens and exports beside bundles."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from lic_codec import bundle, rates
from lic_codec.errors import CodecError
from orchestrator.registry.commands import export
from orchestrator.registry.opening import open_model
from orchestrator.results.bundles import bundle_file
from tests.registry.conftest import Exported
from tests.registry.somebody import Somebody

ROOT = Path(__file__).parents[2]


def run(*words: object) -> Result:
    return CliRunner().invoke(export, [str(word) for word in words])


def test_the_project_names_both_to_the_command_line() -> None:
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    assert points["lic.models"] == {"project": f"{open_model.__module__}:open_model"}
    assert points["lic.commands"] == {"export": "orchestrator.registry.commands:export"}


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("nothing", r"no bundle's folder, no .safetensors file, and no address models:/NAME@ALIAS"),
        ("gone.safetensors", r"gone.safetensors: "),
        ("models:/name@alias", r"MLFLOW_TRACKING_URI is not set"),
    ],
)
def test_what_is_no_model_is_one_line(model: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CodecError, match=said) as refused:
        open_model(model, None)
    assert len(str(refused.value).splitlines()) == 1
    exported = run(model, "folder")
    assert exported.exit_code == 1 and len(exported.output.strip().splitlines()) == 1
    assert [*tmp_path.iterdir()] == []


def test_a_version_that_is_not_there_is_one_line(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(CodecError, match=r"^models:/nobody@best: MLflow at sqlite:[^\n]*nobody[^\n]*$"):
        open_model("models:/nobody@best", None)


def test_nothing_is_written_over_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter").write_text("dear")
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/codec.json").write_text("{}")
    (tmp_path / "file").write_text("")
    for folder, said in (("mine", "not empty"), ("bundle", "--force writes over it"), ("file", "a file is there")):
        refused = run("a.safetensors", tmp_path / folder)
        assert refused.exit_code == 1 and said in refused.output
    assert run("a.safetensors", tmp_path / "mine", "--force").exit_code == 1 and (tmp_path / "mine/letter").exists()


@pytest.mark.slow
def test_weights_and_versions_become_the_same_codec(
    tmp_path: Path, uri: str, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    one = Somebody(tmp_path, uri)
    student = one.student("01-c", exported.weights)
    one.run.replace(bundle_file("01-c", student.weights_digest), exported.bundle)
    (version,) = one.register(student)
    assert one.run.folder is not None
    weights = one.run.folder / student.weights
    written, fetched = run(weights, tmp_path / "of weights"), run(version.uri, tmp_path / "of a version")
    assert (written.exit_code, fetched.exit_code) == (0, 0), written.output + fetched.output
    again = run(version.uri, tmp_path / "of weights", "--force")
    assert again.exit_code == 0, again.output
    assert {path.name for path in tmp_path.iterdir()} >= {"of weights", "of a version"}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    rgb = np.random.default_rng(0).integers(0, 256, (65, 70, 3), dtype=np.uint8)
    opened = [
        open_model(str(weights), 1),
        open_model(version.uri, 1),
        bundle.load(tmp_path / "of weights").codec,
        bundle.load(tmp_path / "of a version").codec,
    ]
    stream = opened[0].encode(rgb, rates.between(opened[0].entropy, 1.5))
    assert len(stream) > 200
    decoded = [codec.decode(stream).astype(int) for codec in opened]
    assert all(np.abs(other - decoded[0]).max() <= 1 for other in decoded)
