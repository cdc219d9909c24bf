"""Keys change with what changes the bytes, and with nothing else."""

from __future__ import annotations

import pickle
from dataclasses import replace
from importlib.metadata import version

import pytest

from models.families import FAMILIES
from orchestrator.features.format import key
from orchestrator.features.format.key import FeatureError, TeacherWeights, plan_features, shard_key
from orchestrator.photographs.passes import SHARD_CROPS

TAPS = ("x", "y", "x_hat")
MODULES = ("z", "g_a.3:spatial", "g_a:channel", "h_a.0:raw", "g_s.1:spatial", "h_s.0:channel")


@pytest.fixture
def crops(plan):
    return [plan.crops[index] for index in plan.pools[0][:8]]


def of(tap, crops, teacher=None):
    return shard_key(tap, None if tap == "x" else teacher, crops)


@pytest.mark.parametrize("tap", TAPS)
@pytest.mark.parametrize(
    "change",
    [{"left": 1}, {"top": 1}, {"side": 1}, {"flip": None}, {"size": 64}, {"photograph": "ab"}],
    ids=lambda change: next(iter(change)),
)
def test_another_crop_is_another_key(crops, teacher, tap, change):
    ((field, step),) = change.items()
    value = getattr(crops[3], field)
    changed = not value if field == "flip" else step if field == "photograph" else value + step
    others = [*crops[:3], replace(crops[3], **{field: changed}), *crops[4:]]
    assert of(tap, others, teacher) != of(tap, crops, teacher)
    assert of(tap, crops[::-1], teacher) != of(tap, crops, teacher)


def test_only_what_lies_behind_the_quantiser_knows_the_rate_point(crops, teacher):
    others = [replace(crop, rate_point=4) for crop in crops]
    assert [of(tap, crops, teacher) == of(tap, others, teacher) for tap in TAPS] == [True, True, False]
    equal = [of(tap, crops, teacher) == of(tap, others, teacher) for tap in MODULES]
    assert equal == [True, True, True, True, False, False]
    grouped = replace(teacher, family="feds-teacher")  # whose hyper-analysis sees y with its gain
    equal = [of(tap, crops, grouped) == of(tap, others, grouped) for tap in ("y", *MODULES)]
    assert equal == [True, False, True, True, False, False, False]
    networks = replace(teacher, kind="fixed-lambda")  # one a rate point: each has a y of its own
    assert [of(tap, crops, networks) == of(tap, others, networks) for tap in TAPS] == [True, False, False]


def test_a_tap_of_another_rate_point_is_what_crops_of_that_rate_point_have(crops, teacher):
    others = [replace(crop, rate_point=3) for crop in crops]
    networks = replace(teacher, kind="fixed-lambda")
    for tap in ("x_hat", "g_s.1:spatial", "entropy"):
        assert of(f"{tap}@3", crops, teacher) == of(tap, others, teacher) != of(tap, crops, teacher)
    assert of("y@3", crops, teacher) == of("y", crops, teacher)  # a variable-rate network has one y for all
    assert of("y@3", crops, networks) == of("y", others, networks) != of("y", crops, networks)


def test_a_teacher_is_its_weights_whatever_it_is_called(crops, teacher):
    renamed = TeacherWeights(name="other", path="/elsewhere", digest=teacher.digest)
    trained = replace(teacher, digest="0" * 64)
    for tap in ("y", "x_hat"):
        assert of(tap, crops, teacher) == of(tap, crops, renamed) != of(tap, crops, trained)


def of_all(crops, teacher):
    return {tap: of(tap, crops, teacher) for tap in TAPS}


def test_our_own_versions_are_in_the_key(crops, teacher, monkeypatch):
    before = of_all(crops, teacher)

    def changed(name, value):
        with monkeypatch.context() as patch:
            patch.setattr(key, name, value)
            return {tap for tap, now in of_all(crops, teacher).items() if now != before[tap]}

    newer = {name: replace(family, forward_version=99) for name, family in FAMILIES.items()}
    assert changed("FAMILIES", {**FAMILIES, "hyperprior": newer["hyperprior"]}) == {"y", "x_hat"}
    assert changed("FAMILIES", {**FAMILIES, "mean-scale": newer["mean-scale"]}) == set()
    assert changed("CUT_VERSION", 99) == {"x", "y", "x_hat"}
    assert changed("codec_of", lambda tap: "u8/1" if tap in ("x", "x_hat") else "q8/2") == {"y"}


@pytest.mark.parametrize(
    ("package", "changed"),
    [("torch", {"y", "x_hat"}), ("compressai", {"y", "x_hat"}), ("pillow", {"x", "y", "x_hat"}), ("numpy", set())],
)
def test_library_versions_are_in_the_key_where_they_compute(crops, teacher, monkeypatch, package, changed):
    before = {tap: of(tap, crops, teacher) for tap in TAPS}
    real = version
    monkeypatch.setattr(key, "version", lambda name: "0.0" if name == package else real(name))
    assert {tap for tap in TAPS if of(tap, crops, teacher) != before[tap]} == changed
    copied = [replace(crop, side=crop.size) for crop in crops]  # Pillow resamples none of these
    assert (of("x", copied) == shard_key("x", None, copied)) and package in ("torch", "compressai", "pillow", "numpy")


def test_pillow_does_not_matter_to_crops_that_are_copied(crops, monkeypatch):
    copied = [replace(crop, side=crop.size) for crop in crops]
    before = of("x", copied)
    monkeypatch.setattr(key, "version", lambda name: "0.0")
    assert of("x", copied) == before


def test_shards_cover_the_plan_each_at_one_rate_point(plan, feature_plans):
    for features in feature_plans:
        assert sorted(index for shard in features.shards for index in shard) == list(range(len(plan.crops)))
        for shard in features.shards:
            assert len({plan.crops[index].rate_point for index in shard}) == 1 and len(shard) <= SHARD_CROPS
        names = [features.object(tap, shard) for tap in features.taps for shard in range(len(features.shards))]
        assert len(set(names)) == len(names)


def test_the_ledgers_name_follows_the_keys(plan, teacher):
    both, latent = plan_features(plan, teacher), plan_features(plan, teacher, ["y"])
    assert both.ledger() != latent.ledger() != plan_features(plan).ledger()
    assert both.object("y", 0) == latent.object("y", 0)
    assert plan_features(plan, replace(teacher, name="b", path="/b")).ledger() == both.ledger()


def test_what_a_reader_gets_is_small(feature_plans):
    assert len(pickle.dumps(feature_plans[1].ordering)) < 2_000


def test_whoever_fills_a_shard_is_written_down_in_one_place(plan, teacher):
    both, latent = plan_features(plan, teacher), plan_features(plan, teacher, ["y"])
    assert both.record(3) == latent.record(3) != both.record(2)
    assert both.record(3) != plan_features(plan).record(3)


@pytest.mark.parametrize(
    ("taps", "named"),
    [
        (["x"], "'x'"),
        (["g_a.3"], "'g_a.3'"),
        (["g_a.3:mean"], "'g_a.3:mean'"),
        (["../y"], "'../y'"),
        (["q:raw"], "'q:raw'"),
    ],
)
def test_taps_that_a_teacher_does_not_have_are_refused(plan, teacher, taps, named):
    with pytest.raises(
        FeatureError, match=rf"^taps: {named} is not allowed: y, y_hat, z, x_hat, entropy, or MODULE:spatial"
    ):
        plan_features(plan, teacher, taps)


def test_taps_are_at_least_one_and_each_once(plan, teacher):
    for taps in ([], ["y", "y"]):
        with pytest.raises(FeatureError, match="is not allowed: at least one, each once"):
            plan_features(plan, teacher, taps)
    with pytest.raises(FeatureError, match="taps: 'y' is not allowed: x"):
        plan_features(plan, None, ["y"])
