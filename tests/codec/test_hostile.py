"""Damaged and crafted streams: an image or one line, within bounds of memory and time."""

from __future__ import annotations

import pathlib
import random
import resource
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from lic_codec.codec import Codec
from lic_codec.container import parse
from lic_codec.errors import CodecError
from lic_codec.rates import rate_point
from models.bitstream import prepare_for_coding
from models.ladder import RateLadder
from testing.hostile import crafted, damaged, outcomes, sealed

LARGEST = 1 << 20


@pytest.fixture(scope="module", params=["hyperprior", "mean-scale", "feds-student"])
def codec(request) -> Codec:
    torch.manual_seed(0)
    return prepare_for_coding(RateLadder(family=request.param, N=4, M=6, lambdas=(0.002, 0.01)).eval()).codec


@pytest.fixture(scope="module")
def stream(codec) -> bytes:
    rgb = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    return codec.encode(rgb, rate_point(codec.entropy, 1))


@pytest.fixture
def little_memory() -> Iterator[None]:
    """What is there now and 1 GiB more."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pathlib.Path("/proc/self/statm").open() as file:
        pages = int(file.read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def test_damaged_streams_are_refused(codec, stream, little_memory):
    draw = random.Random(0)
    found = outcomes(codec, (damaged(stream, draw) for _ in range(400)), LARGEST)
    assert found.images <= 2 and found.errors.total() >= 398  # a change may undo another


def test_crafted_streams_are_images_or_one_line(codec, stream, little_memory):
    draw = random.Random(1)
    found = outcomes(codec, (crafted(stream, draw) for _ in range(150)), LARGEST)
    assert found.images > 10 and found.errors.total() > 10
    assert found.slowest_s < 20


def test_large_photographs_of_few_bytes_are_refused_before_anything_is_allocated(codec, stream, little_memory):
    claimed = bytearray(stream)
    claimed[10:14] = b"\xff\xff\xff\xff"
    with pytest.raises(CodecError, match=r"65535x65535 pixels are more than the limit of 1048576"):
        codec.decode(sealed(bytes(claimed)), LARGEST)
    with pytest.raises(CodecError, match=r"damaged stream: \d+ bytes of 65535x65535 pixels"):
        codec.decode(sealed(bytes(claimed)), 1 << 40)


def test_no_encoder_needs_fewer_bytes_than_the_bound(codec):
    flat = np.full((256, 256, 3), 7, np.uint8)
    coded = codec.encode(flat, rate_point(codec.entropy, 0))
    (network,) = codec.entropy.networks
    assert 8 * len(parse(coded).payload) + 64 > network.least_bits(16)
