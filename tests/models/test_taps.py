"""What losses read of a feature map."""

import pytest
import torch

from models.taps import TapPathError, reduced, tapped


def test_where_a_feature_is_strong_and_which_is() -> None:
    feature = torch.arange(24, dtype=torch.float32).reshape(1, 2, 3, 4)
    spatial, channel = reduced(feature, "spatial"), reduced(feature, "channel")
    assert spatial.shape == (1, 1, 3, 4) and channel.shape == (1, 2, 1, 1)
    assert spatial[0, 0, 1, 2].item() == pytest.approx((6**2 + 18**2) / 2)
    assert channel[0, 1, 0, 0].item() == pytest.approx(sum(value**2 for value in range(12, 24)) / 12)
    assert torch.equal(reduced(feature, "raw"), feature) and reduced(feature.bfloat16(), "raw").dtype == torch.float32


def test_a_path_that_is_no_module() -> None:
    network = torch.nn.Sequential(torch.nn.Identity())
    with pytest.raises(TapPathError) as raised, tapped(network, ["0", "1"]):
        pass
    assert raised.value.path == "1" and not network[0]._forward_hooks  # nothing is left of the other path
