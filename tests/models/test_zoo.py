"""CompressAI's zoo: nothing is downloaded here; stand-ins for its files are put into torch's cache."""

import hashlib
import urllib.error

import pytest
import torch
from compressai.models import ScaleHyperprior
from compressai.zoo import image

from models.weights import WeightsError, load_ladder
from models.zoo import LAMBDAS as EVERY
from models.zoo import NARROW, NETWORKS, WIDE, zoo_ladder

LAMBDAS = EVERY["mse"]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub cache, and no access to the internet."""

    def refused(url: str, target: str) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refused)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def pretend(hub, monkeypatch, quality: int, *, damaged: bool = False, distortion: str = "mse"):
    """A network as the zoo would give it, under a name with its own digest."""
    torch.manual_seed(quality)
    network = ScaleHyperprior(128, 192)
    torch.save(network.state_dict(), hub / "new")
    data = (hub / "new").read_bytes()
    name = f"bmshj2018-hyperprior-{quality}-{hashlib.sha256(data).hexdigest()[:8]}.pth.tar"
    (hub / name).write_bytes(data[:-9] + b"different" if damaged else data)
    urls = image.model_urls["bmshj2018-hyperprior"][distortion]
    monkeypatch.setitem(urls, quality, f"https://models.invalid/{name}")
    return network


@pytest.mark.parametrize("distortion", EVERY)
def test_the_zoo_s_networks_become_a_ladder(hub, monkeypatch, tmp_path, distortion):
    networks = [pretend(hub, monkeypatch, quality, distortion=distortion) for quality in (1, 2)]
    lambdas = EVERY[distortion][:2]
    path = zoo_ladder("bmshj2018-hyperprior", lambdas, tmp_path, distortion)
    ladder = load_ladder(path)
    assert (ladder.kind, ladder.N, ladder.M, ladder.lambdas) == ("fixed-lambda", 128, 192, lambdas)
    assert ladder.distortion == distortion
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        for rate_point, network in enumerate(networks):
            torch.testing.assert_close(ladder(x, rate_point)["x_hat"], network.eval()(x)["x_hat"])
    assert zoo_ladder("bmshj2018-hyperprior", lambdas, tmp_path, distortion) == path


@pytest.mark.parametrize("name", NETWORKS)
def test_widths_are_those_of_compressai_s_own_table(name):
    _, last_narrow = NETWORKS[name]
    ours = {quality: NARROW if quality <= last_narrow else WIDE for quality in range(1, len(LAMBDAS) + 1)}
    assert ours == image.cfgs[name]


def test_no_internet_is_one_line_that_says_what_to_do(hub, tmp_path):
    with pytest.raises(WeightsError, match="cannot be downloaded") as error:
        zoo_ladder("bmshj2018-hyperprior", LAMBDAS[:5], tmp_path)
    assert "\n" not in str(error.value) and str(hub) in str(error.value)


def test_a_file_of_another_digest_is_refused(hub, monkeypatch, tmp_path):
    pretend(hub, monkeypatch, 1, damaged=True)
    with pytest.raises(WeightsError, match="SHA-256"):
        zoo_ladder("bmshj2018-hyperprior", LAMBDAS[:1], tmp_path)


@pytest.mark.parametrize(
    ("name", "lambdas", "complaint"),
    [
        ("cheng2020-anchor", LAMBDAS[:5], "allowed are bmshj2018-hyperprior, mbt2018-mean"),
        ("mbt2018-mean", (0.0018, 0.002), "lambda 0.002 is not one of the zoo's"),
        ("bmshj2018-hyperprior", LAMBDAS, r"up to 0.025 and above it .* different widths"),
        ("mbt2018-mean", LAMBDAS[:5], r"up to 0.013 and above it .* different widths"),  # PRIM's five
    ],
)
def test_what_the_zoo_does_not_have_is_named(hub, tmp_path, name, lambdas, complaint):
    with pytest.raises(WeightsError, match=complaint):
        zoo_ladder(name, lambdas, tmp_path)
