"""Files of weights describe themselves, and other files are refused."""

import pytest
import torch
from safetensors.torch import save_file

from models.catalogue import SHIPPED, build_ladder
from models.families import FAMILIES, Kind
from models.ladder import RateLadder
from models.weights import WeightsError, digest, load_ladder, read_metadata, save_ladder, slice_from

LAMBDAS = (0.0018, 0.0035, 0.0067, 0.013)


def ladder(N: int = 8, family: str = "hyperprior", kind: Kind = "variable-rate") -> RateLadder:
    return RateLadder(family=family, N=N, M=12, lambdas=LAMBDAS, kind=kind)


@pytest.mark.parametrize("kind", ["variable-rate", pytest.param("fixed-lambda", marks=pytest.mark.slow)])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_ladder_comes_back_whole(tmp_path, family, kind):
    saved = RateLadder(family=family, N=8, M=12, Z=5, lambdas=LAMBDAS, kind=kind)
    save_ladder(tmp_path / "a.safetensors", saved, recipe="by hand")
    loaded = load_ladder(tmp_path / "a.safetensors")
    assert (loaded.family, loaded.N, loaded.M, loaded.Z) == (family, 8, 12, 5)
    assert (loaded.kind, loaded.lambdas) == (kind, LAMBDAS)
    assert read_metadata(tmp_path / "a.safetensors").notes["recipe"] == "by hand"
    for name, value in saved.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=0, atol=0)


def test_half_precision_halves_the_file(tmp_path):
    saved = ladder(32)
    save_ladder(tmp_path / "full.safetensors", saved)
    save_ladder(tmp_path / "half.safetensors", saved, dtype=torch.float16)
    full, half = ((tmp_path / f"{name}.safetensors").stat().st_size for name in ("full", "half"))
    assert half < 0.55 * full
    assert digest(tmp_path / "full.safetensors") != digest(tmp_path / "half.safetensors")


def test_damaged_or_foreign_files_are_refused_in_one_line(tmp_path):
    (tmp_path / "text.safetensors").write_text("not weights")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    save_ladder(tmp_path / "whole.safetensors", ladder())
    whole = (tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "torn.safetensors").write_bytes(whole[: len(whole) // 2])
    for name in ("missing", "text", "foreign", "torn"):
        with pytest.raises(WeightsError, match=name) as error:
            load_ladder(tmp_path / f"{name}.safetensors")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    diverged = ladder()
    with torch.no_grad():
        dict(diverged.named_parameters())[(name := "networks.0.g_a.0.bias")][0] = value
    save_ladder(tmp_path / "a.safetensors", diverged)
    with pytest.raises(WeightsError, match=f"a.safetensors: parameter {name} is not finite: the file is damaged"):
        load_ladder(tmp_path / "a.safetensors")


def test_weights_of_another_width_are_refused(tmp_path):
    save_ladder(tmp_path / "wide.safetensors", ladder(16))
    with pytest.raises(WeightsError, match="shape"):
        build_ladder(
            family="hyperprior",
            N=8,
            M=12,
            lambdas=LAMBDAS,
            kind="variable-rate",
            init=str(tmp_path / "wide.safetensors"),
        )


def test_a_slice_takes_the_leading_channels_and_says_what_it_could_not_take(tmp_path):
    wide, narrow = ladder(16), ladder(8)
    assert slice_from(narrow, wide) == []
    torch.testing.assert_close(narrow.networks[0].g_a[2].weight, wide.networks[0].g_a[2].weight[:8, :8], rtol=0, atol=0)
    other = slice_from(ladder(8, family="mean-scale"), wide)
    assert other and all(".h_s." in name for name in other)


def test_the_shipped_weights_load_and_fit_their_allowance():
    files = sorted(SHIPPED.glob("*.safetensors"))
    assert {"teacher-hyperprior", "teacher-mean-scale"} <= {path.stem for path in files}
    assert sum(path.stat().st_size for path in files if path.stem.startswith("teacher")) <= 6_000_000
    for path in files:
        assert load_ladder(path).kind == "variable-rate"
