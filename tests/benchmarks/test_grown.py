"""A FEDS teacher that is grown from a hyperprior decodes as it does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.whole import grown
from models.ladder import RateLadder
from models.weights import load_ladder, save_ladder

LAMBDAS = (0.0018, 0.025)


def test_both_files_decode_as_the_hyperprior(tmp_path: Path) -> None:
    torch.manual_seed(0)
    hyperprior = RateLadder(family="hyperprior", N=8, M=20, Z=8, lambdas=LAMBDAS).eval()
    weights = tmp_path / "weights.safetensors"
    save_ladder(weights, hyperprior)
    assert grown.main([str(weights), "--train", "data/quickstart", "--out", str(tmp_path)]) == 0
    in_order, teacher = (load_ladder(tmp_path / f"{name}.safetensors").eval() for name in ("sorted", "grown"))
    assert (teacher.family, teacher.N, teacher.M, teacher.Z, teacher.lambdas) == ("feds-teacher", 8, 20, 8, LAMBDAS)
    x = grown.crops("data/quickstart")
    with torch.inference_mode():
        before, after = (ladder(x, 1, taps=("entropy", "y_hat")) for ladder in (hyperprior, in_order))
        torch.testing.assert_close(after["x_hat"], before["x_hat"])
        bits = after["entropy"].mean(dim=0).flatten()
        assert torch.equal(bits, bits.sort(descending=True).values) and bits[0] > bits[-1]
        torch.testing.assert_close(teacher.apart(None, after["y_hat"], 1, ("g_s",))["x_hat"], after["x_hat"])


def test_another_network_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.safetensors"
    save_ladder(other, RateLadder(family="mean-scale", N=8, M=12, lambdas=LAMBDAS))
    with pytest.raises(SystemExit):
        grown.main([str(other), "--train", "data/quickstart", "--out", str(tmp_path)])
    assert "not a variable-rate hyperprior" in capsys.readouterr().err
