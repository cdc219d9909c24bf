"""The specification's loader: what it takes, and one line for each thing that it does not."""

from __future__ import annotations

import pickle
import subprocess
import sys
import traceback
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from orchestrator.spec.load import dump, load_spec
from orchestrator.spec.loss_space import Range
from orchestrator.spec.messages import SpecError
from orchestrator.spec.sections import Photographs, Student, Training
from orchestrator.spec.spec import Spec, check_paths

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "jobs" / "specs" / "quickstart.yaml"
GRID = Path(__file__).with_name("grid.yaml")
SECRET = "wJalrXUtnFEMI/K7MDENG"  # made up

# The only line that each of these overrides of the grid gives: the field, the value and what is allowed.
SECTIONS, TRAINING, STUDENT = (", ".join(section.model_fields) for section in (Spec, Training, Student))
NAME = "at most 100 letters, digits, dots, underscores and hyphens, the first a letter or digit"
WEIGHT = "a finite number of at least 0, or a range {low: 0.003, high: 3.0} with 0 < low < high"
RISING = "numbers above 0, each greater than the one before"
PLACE = "a path, file:///path or s3://bucket/prefix"
SUCH = "such as training.learning_rate=3e-4"
MALFORMED = {
    "unknown key": (
        "training.learning_rat=1",
        f"training.learning_rat: unknown key, did you mean learning_rate? allowed are {TRAINING}",
    ),
    "the only entry of a list": (
        "students=[{family: hyperprior, N: 0, M: 96}]",
        "students.0.N: 0 is not allowed: a whole number of at least 1 and of at most 512",
    ),
    "unknown section": ("traning.batch_size=8", f"traning: unknown key, did you mean training? allowed are {SECTIONS}"),
    "unknown key in a list": ("students.1.width=3", f"students.1.width: unknown key, allowed are {STUDENT}"),
    "text for a number": ("trials=many", "trials: 'many' is not allowed: a whole number of at least 1"),
    "fraction for a count": ("trials=1.5", "trials: 1.5 is not allowed: a whole number of at least 1"),
    "number for a boolean": ("controls=1", "controls: 1 is not allowed: true or false"),
    "YAML 1.1 boolean": ("controls=no", "controls: 'no' is not allowed: true or false"),
    "boolean for a number": (
        "training.batch_size=true",
        "training.batch_size: true is not allowed: a whole number of at least 1",
    ),
    "boolean for a choice": ("training.zero_stage=true", "training.zero_stage: true is not allowed: 0, 1, 2 or 3"),
    "section missing": ("photographs=", "photographs: nothing is not allowed: a section with train, validation, unfit"),
    "number for a section": ("photographs=3", "photographs: 3 is not allowed: a section with train, validation, unfit"),
    "required key missing": ("teachers.0={name: a}", "teachers.0.weights: missing: text"),
    "not a choice": ("training.zero_stage=7", "training.zero_stage: 7 is not allowed: 0, 1, 2 or 3"),
    "not a family": (
        "students.2.family=elic",
        "students.2.family: 'elic' is not allowed: hyperprior, mean-scale, feds-teacher, feds-student or transformer",
    ),
    "negative": ("seed=-1", "seed: -1 is not allowed: a whole number of at least 0 and below 4294967296"),
    "zero rate": ("training.learning_rate=0", "training.learning_rate: 0 is not allowed: a finite number above 0"),
    "infinite": ("training.learning_rate=.inf", "training.learning_rate: inf is not allowed: a finite number above 0"),
    "not a number": ("losses.0.latent=.nan", f"losses.0.latent: nan is not allowed: {WEIGHT}"),
    "a range for a grid": (
        "losses.0.latent={low: 0.003, high: 3}",
        "losses.0.latent: {low: 0.003, high: 3.0} is not allowed: a number, since search.method is grid",
    ),
    "a range from zero": (
        "losses.0.latent={low: 0, high: 3}",
        f"losses.0.latent: {{low: 0, high: 3}} is not allowed: {WEIGHT}",
    ),
    "half a range": ("losses.0.latent={low: 1}", f"losses.0.latent: {{low: 1}} is not allowed: {WEIGHT}"),
    "an infinite range": (
        "losses.0.latent={low: 1, high: .inf}",
        f"losses.0.latent: {{low: 1, high: inf}} is not allowed: {WEIGHT}",
    ),
    "not a method": ("search.method=bo", "search.method: 'bo' is not allowed: grid, random, tpe or nsga2"),
    "no replicates": ("search.replicates=0", "search.replicates: 0 is not allowed: a whole number of at least 1"),
    "part of a configuration": ("search.replicates=5", "trials: 12 is not allowed: a multiple of search.replicates, 5"),
    "not a multiple of 64": (
        "crops.size=100",
        "crops.size: 100 is not allowed: a whole number of at least 64 and in multiples of 64",
    ),
    "too many channels": (
        "students.0.N=513",
        "students.0.N: 513 is not allowed: a whole number of at least 1 and of at most 512",
    ),
    "no students": ("students=[]", "students: [] is not allowed: at least one student, encoder or decoder"),
    "name with a slash": ("name=../x", f"name: '../x' is not allowed: {NAME}"),
    "rungs fall": ("early_stopping.rungs=[512, 512]", f"early_stopping.rungs: [512, 512] is not allowed: {RISING}"),
    "more brackets than rungs": (
        "early_stopping.brackets=4",
        "early_stopping.brackets: 4 is not allowed: at most 3, the number of rungs",
    ),
    "an unknown rule": (
        "early_stopping.rule=hyperband",
        "early_stopping.rule: 'hyperband' is not allowed: stratified, pause, asha, moasha or none",
    ),
    "rung between steps": (
        "early_stopping.rungs.1=1540",
        "early_stopping.rungs.1: 1540 is not allowed: a multiple of training.batch_size, 8",
    ),
    "reduction keeps all": (
        "early_stopping.reduction=1",
        "early_stopping.reduction: 1 is not allowed: a whole number of at least 2",
    ),
    "ranks do not share evenly": (
        "training.ranks_per_trial=3",
        "training.batch_size: 8 is not allowed: a multiple of training.ranks_per_trial, 3",
    ),
    "micro-batches do not share evenly": (
        "training.micro_batch_size=3",
        "training.micro_batch_size: 3 is not allowed: a divisor of 4, a rank's share of training.batch_size",
    ),
    "a GPU and a half": (
        "training.gpus_per_rank=1.5",
        "training.gpus_per_rank: 1.5 is not allowed: a number of at most 1, or a whole number",
    ),
    "ranks of one trial on one GPU": (
        "training.gpus_per_rank=0.5",
        "training.gpus_per_rank: 0.5 is not allowed: "
        "0 or a whole number with several ranks a trial: NCCL takes one rank a GPU",
    ),
    "compiled, with ZeRO 3": (
        "training={batch_size: 8, compile: transforms, zero_stage: 3}",
        "training.compile: 'transforms' is not allowed: off with training.zero_stage 3, which reads inside g_a and g_s",
    ),
    "soap, with ZeRO": (
        "training.optimizer=soap",
        "training.optimizer: 'soap' is not allowed: adam with training.zero_stage 1, which parts flattened layers; "
        "soap takes 0",
    ),
    "compiled otherwise": ("training.compile=all", "training.compile: 'all' is not allowed: off or transforms"),
    "no grace": ("preemption.grace_s=0", "preemption.grace_s: 0 is not allowed: a finite number above 0"),
    "lambdas fall": (
        "rate_ladder.lambdas=[4e-3, 3e-3, 2e-3, 1e-3]",
        f"rate_ladder.lambdas: [0.004, 0.003, 0.002, 0.001] is not allowed: {RISING}",
    ),
    "too few lambdas": (
        "rate_ladder.lambdas=[1e-3, 2e-3, 3e-3]",
        "rate_ladder.lambdas: [0.001, 0.002, 0.003] is not allowed: at least 4 of them, since BD-rate needs a curve",
    ),
    "lambda of zero": (
        "rate_ladder.lambdas=[0, 1e-3, 2e-3, 3e-3]",
        f"rate_ladder.lambdas: [0, 0.001, 0.002, 0.003] is not allowed: {RISING}",
    ),
    "downscale above 1": (
        "crops.downscale=[0.5, 2]",
        "crops.downscale: [0.5, 2] is not allowed: two numbers above 0 and up to 1, the smaller one first",
    ),
    "downscale turned round": (
        "crops.downscale=[0.9, 0.6]",
        "crops.downscale: [0.9, 0.6] is not allowed: two numbers above 0 and up to 1, the smaller one first",
    ),
    "one number for two": ("crops.downscale=[0.9]", "crops.downscale.1: missing: a finite number"),
    "too few crops": (
        "crops.count=39",
        "crops.count: 39 is not allowed: at least 40: a batch of 8 for each of 5 lambdas",
    ),
    "a teacher twice": (
        "teachers.1.name=hyperprior",
        "teachers.1.name: 'hyperprior' is not allowed: each only once, and teachers.0.name has this",
    ),
    "a student twice": (
        "students=[{family: hyperprior, N: 8, M: 96}, {family: hyperprior, N: 8, M: 96}]",
        "students.1: {family: 'hyperprior', N: 8, M: 96, Z: nothing, encoder_N: nothing, init: 'ra... is not allowed: "
        "each only once, and students.0 has this",
    ),
    "fewer channels than groups": (
        "students.0={family: feds-student, N: 8, M: 4}",
        "students.0.M: 4 is not allowed: at least 5 for feds-student, one for each group of channels",
    ),
    "a weight that the preset has not": (
        "losses.0={preset: prim-l1, hyper_latent: 1}",
        "losses.0.hyper_latent: 1.0 is not allowed: a weight that prim-l1 has: latent, rate_distortion, reconstruction",
    ),
    "shares that do not sum to 1": (
        "losses.0={phases: [{share: 0.5}, {share: 0.3, weights: {latent: 1}}]}",
        "losses.0.phases: [0.5, 0.3] is not allowed: shares that sum to 1",
    ),
    "a rate point that the ladder has not": (
        "losses.0={latent: 1, teacher_rate_point: {latent: 5}}",
        "losses.0.teacher_rate_point.latent: 5 is not allowed: same or at most 4, the index of the last lambda",
    ),
    "a part that no network has": (
        "losses.0={phases: [{freeze: [decoder]}]}",
        "losses.0.phases.0.freeze.0: 'decoder' is not allowed: g_a, h_a, h_s, g_s or entropy",
    ),
    "a loss twice": (
        "losses=[{latent: 1}, {latent: 1.0}]",
        "losses.1: {latent: 1.0} is not allowed: each only once, and losses.0 has this",
    ),
    "a loss of nothing": (
        "losses.0={rate_distortion: 0}",
        "losses.0: {rate_distortion: 0} is not allowed: at least one weight above 0",
    ),
    "more trials than there are": (
        "trials=29",
        "trials: 29 is not allowed: at most 28: 4 students x (2 teachers x 3 losses + 1 control)",
    ),
    "zoo name with more behind it": (
        "teachers.0.weights=zoo:mbt2018-mean:3",
        "teachers.0.weights: 'zoo:mbt2018-mean:3' is not allowed: "
        "zoo:NAME, such as zoo:bmshj2018-hyperprior; rate_ladder.lambdas say which qualities",
    ),
    "weights of another kind": (
        "teachers.0.weights=a.pth",
        "teachers.0.weights: 'a.pth' is not allowed: a local .safetensors file or zoo:NAME",
    ),
    "init of another kind": (
        "students.0.init=warm",
        "students.0.init: 'warm' is not allowed: random, teacher-slice, teacher-refit or a local .safetensors file",
    ),
    "a name that is a number": (
        "name=2024",
        'name: 2024 is not allowed: it is a number; as text it is "2024", with its quotes',
    ),
    "a name that is a truth": (
        "name=true",
        'name: true is not allowed: it is true or false; as text it is "true", with its quotes',
    ),
    "a folder that is a number": (
        "photographs.train=7",
        'photographs.train: 7 is not allowed: it is a number; as text it is "7", with its quotes',
    ),
    "a zoo's quality": (
        "teachers.0.weights=zoo:mbt2018-mean:3",
        "teachers.0.weights: 'zoo:mbt2018-mean:3' is not allowed: "
        "zoo:NAME, such as zoo:bmshj2018-hyperprior; rate_ladder.lambdas say which qualities",
    ),
    "another protocol": ("store=gs://bucket/x", f"store: 'gs://bucket/x' is not allowed: {PLACE}"),
    "s3a": ("results=s3a://bucket/x", f"results: 's3a://bucket/x' is not allowed: {PLACE}"),
    "s3 without a bucket": ("store=s3://", f"store: 's3://' is not allowed: {PLACE}"),
    "relative file URL": ("store=file://runs", f"store: 'file://runs' is not allowed: {PLACE}"),
    "the store in the run's place": (
        "store=runs/grid",
        "name: 'grid' is not allowed: another one, since results/name is the store",
    ),
    "name with a blank": ("teachers.0.name=a b", f"teachers.0.name: 'a b' is not allowed: {NAME}"),
    "a number for a list": (
        "teachers=3",
        "teachers: 3 is not allowed: a list of at least 1, each a section with name, weights",
    ),
    "a number for an entry of a list": (
        "losses.0.phases=3",
        "losses.0.phases: 3 is not allowed: "
        "a list of at least 0, each a section with share, apart, weights, learning_rate, freeze",
    ),
    "text for a number or nothing": (
        "students.0.Z=x",
        "students.0.Z: 'x' is not allowed: a whole number of at least 1 and of at most 512 or nothing",
    ),
    "three numbers for two": (
        "crops.downscale=[.1,.2,.3]",
        "crops.downscale: [0.1, 0.2, 0.3] is not allowed: a list of 2, each a finite number",
    ),
    "text for one of two numbers": (
        "crops.downscale=[0.5, a]",
        "crops.downscale.1: 'a' is not allowed: a finite number",
    ),
    "no rungs": (
        "early_stopping.rungs=[]",
        "early_stopping.rungs: [] is not allowed: a list of at least 1, each a whole number",
    ),
    "text for a rate point": (
        "losses.0={latent: 1, teacher_rate_point: {latent: x}}",
        "losses.0.teacher_rate_point.latent: 'x' is not allowed: same or an index into rate_ladder.lambdas",
    ),
    "a teacher that there is not": (
        "students.0.teachers=[nobody]",
        "students.0.teachers: 'nobody' is not allowed: hyperprior or mean-scale",
    ),
}

# Whole files: what they hold, and the only line that this gives.
MALFORMED_FILES = {
    "not YAML": ("name: [a\ntrials: 3\n", "line 2, column 7: not YAML: expected ',' or ']', but got ':'"),
    "a key twice": ("name: a\ntrials: 3\ntrials: 4\n", "line 3: the key trials is given twice"),
    "a key that is no text": ("name: a\n3: b\n", "line 2: a key is not text"),
    "empty": ("", f"nothing is not allowed: a section with {SECTIONS}"),
    "a list": ("- name: a\n", f"[{{name: 'a'}}] is not allowed: a section with {SECTIONS}"),
    "two documents": ("name: a\n---\nname: b\n", "line 2, column 1: not YAML: but found another document"),
    "an object": (
        "name: !!python/object/apply:os.system [true]\n",
        "line 1, column 7: not YAML: could not determine a constructor for the tag "
        "'tag:yaml.org,2002:python/object/apply:os.system'",
    ),
    "an endless alias": (
        "name: &a [*a]\n",
        "not plain data: an endless alias, a nesting too deep, a number too long, half a surrogate pair or a tag",
    ),
    "aliases that multiply": (
        f"a: &a [{'x, ' * 9}]\n" + "".join(f"{b}: &{b} [{f'*{a}, ' * 9}]\n" for a, b in pairwise("abcdefghij")),
        "4412961516 entries, each alias a copy: at most 100000 are allowed",
    ),
    "merges that multiply": (
        "a: &a {x: 1}\n" + "".join(f"{b}: &{b} {{<<: [{f'*{a}, ' * 9}]}}\n" for a, b in pairwise("abcdefghij")),
        "1470987176 entries, each alias a copy: at most 100000 are allowed",
    ),
}


@pytest.mark.parametrize(("override", "line"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_value_is_one_line(override: str, line: str) -> None:
    with pytest.raises(SpecError) as raised:
        load_spec(GRID, [override])
    assert str(raised.value) == f"{GRID}: {line}"


@pytest.mark.parametrize(("text", "line"), MALFORMED_FILES.values(), ids=MALFORMED_FILES)
def test_a_malformed_file_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    file = tmp_path / "a spec.yaml"
    file.write_text(text)
    with pytest.raises(SpecError) as raised:
        load_spec(file)
    assert str(raised.value) == f"{file}: {line}"


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9\n")
    reasons = {"absent.yaml": "No such file or directory", "latin.yaml": "it is not UTF-8 text", "": "Is a directory"}
    for file, reason in reasons.items():
        with pytest.raises(SpecError) as raised:
            load_spec(tmp_path / file)
        assert str(raised.value) == f"{tmp_path / file}: cannot be read: {reason}"
    with pytest.raises(SpecError) as raised:
        load_spec("a\0b.yaml")
    assert str(raised.value) == r"'a\x00b.yaml': cannot be read: no path has such characters"


@pytest.mark.parametrize(
    ("override", "line"),
    [
        *((word, f"{word}: not allowed: FIELD=VALUE, {SUCH}") for word in ("trials", "=4", "training..x=4")),
        ("students.4.N=8", "students.4.N: 4 is not an entry of students: allowed are 0 to 3"),
        ("students.first.N=8", "students.first.N: first is not an entry of students: allowed are 0 to 3"),
        ("trials.x=8", "trials.x: trials is neither a section nor a list, so it has no x"),
        ("trials=[", "trials: line 1, column 2: not YAML: expected the node content, but found '<stream end>'"),
    ],
)
def test_a_malformed_override_is_one_line(override: str, line: str) -> None:
    with pytest.raises(SpecError) as raised:
        load_spec(GRID, [override])
    assert str(raised.value) == f"--set {line}"


@pytest.mark.parametrize(
    "override",
    [
        f"store=s3://AKIDEXAMPLE:{SECRET}@bucket/x",
        f"store=s3://bucket/x?secret={SECRET}",
        f"stor=s3://AKIDEXAMPLE:{SECRET}@bucket/x",
        f"name=s3://AKIDEXAMPLE:{SECRET}@bucket/x",
        f"students.0=s3://AKIDEXAMPLE:{SECRET}@bucket/x",
        f"losses.0={{store: 's3://AKIDEXAMPLE:{SECRET}@bucket/x'}}",
        f"store.s3://AKIDEXAMPLE:{SECRET}@bucket/x",
        f"photographs.train=s3://AKIDEXAMPLE:{SECRET}@bucket/x",
    ],
)
def test_credentials_are_refused_and_never_shown(override: str) -> None:
    with pytest.raises(SpecError) as raised:
        load_spec(GRID, [override])
    text = "".join(traceback.format_exception(raised.value))
    assert "AKIDEXAMPLE" not in text and SECRET not in text


def test_the_size_of_the_space_is_told_with_two_controls() -> None:
    losses = "losses=[none, {phases: [{freeze: [g_a]}]}, prim-l1]"
    with pytest.raises(SpecError) as refused:
        load_spec(GRID, ["trials=99", losses])
    assert str(refused.value).endswith("at most 16: 4 students x (2 teachers x 1 loss + 2 controls)")


def test_every_problem_is_listed() -> None:
    with pytest.raises(SpecError) as raised:
        load_spec(GRID, ["trials=0", "training.precision=fp8", "crops.size=1", "stores=x", "store=x:y"])
    assert len(str(raised.value).splitlines()) == 5
    with pytest.raises(SpecError) as raised:
        load_spec(GRID, ["training.batch_size=9", "trials=100"])
    # 9 crops do not share among 2 ranks, two of the rungs are no multiples, and there are not 100 trials.
    assert str(raised.value).splitlines() == [
        f"{GRID}: training.batch_size: 9 is not allowed: a multiple of training.ranks_per_trial, 2",
        f"{GRID}: early_stopping.rungs.0: 320 is not allowed: a multiple of training.batch_size, 9",
        f"{GRID}: early_stopping.rungs.1: 960 is not allowed: a multiple of training.batch_size, 9",
        f"{GRID}: trials: 100 is not allowed: at most 28: 4 students x (2 teachers x 3 losses + 1 control)",
    ]


def test_ms_ssim_needs_lambdas_and_crops_of_its_own() -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(GRID, ["rate_ladder.distortion=ms-ssim", "validation.size=128"])
    assert caught.value.problems == (
        f"{GRID}: rate_ladder.lambdas: [0.0018, 0.0035, 0.0067, 0.013, 0.025] is not allowed: "
        "those of 1 - MS-SSIM, such as 2.4, 4.58, 8.73, 16.64, 31.73",
        f"{GRID}: crops.size: 128 is not allowed: at least 161 for rate_ladder.distortion ms-ssim",
        f"{GRID}: validation.size: 128 is not allowed: at least 161 for rate_ladder.distortion ms-ssim",
    )


def test_overrides_reach_every_kind_of_field() -> None:
    overrides = ["trials=4", "training.learning_rate=3e-4", "students.0.N=12", "rate_ladder.kind=fixed-lambda"]
    overrides += ["training.clip_norm=1", "losses=[{latent: 1}]", "name=012", "early_stopping.rungs=[8, 16]"]
    spec = load_spec(GRID, overrides)
    assert (spec.trials, spec.students[0].N, spec.students[1].N, spec.name) == (4, 12, 20, "012")
    assert (spec.training.learning_rate, spec.training.clip_norm) == (3e-4, 1.0)
    assert isinstance(spec.training.clip_norm, float) and spec.rate_ladder.kind == "fixed-lambda"
    assert spec.early_stopping.rungs == (8, 16) and spec.losses[0].latent == 1.0 and len(spec.losses) == 1


def test_an_override_changes_one_entry_of_an_alias(tmp_path: Path) -> None:
    text = GRID.read_text().split("losses:")[0]
    file = tmp_path / "alias.yaml"
    file.write_text(text + "losses: [&a {latent: 0.1}, {<<: *a, reconstruction: 1}, *a]\n")
    spec = load_spec(file, ["losses.2.latent=0.3"])
    assert [(loss.latent, loss.reconstruction) for loss in spec.losses] == [(0.1, None), (0.1, 1.0), (0.3, None)]


def test_what_is_written_reads_back_equal(tmp_path: Path) -> None:
    overrides = ["name='1e5'", "photographs.train='no'", "photographs.validation='2026-01-01'", "seed=4294967295"]
    spec = load_spec(GRID, [*overrides, "training.learning_rate=1e-5", "store='s3://bucket/a b'"])
    file = tmp_path / "spec.yaml"
    file.write_text(dump(spec))
    assert load_spec(file) == spec
    assert Spec.model_validate_json(spec.model_dump_json()) == spec
    assert yaml.safe_load(dump(spec)) == spec.model_dump(mode="json")  # also by a reader of YAML 1.1


def test_ranges_are_for_methods_that_draw() -> None:
    ranged = ["search.method=tpe", "losses.1={preset: prim-l1, latent: {low: 1e-3, high: 1}}", "trials=500"]
    spec = load_spec(GRID, ranged)
    assert spec.losses[1].ranges == {"latent": Range(low=0.001, high=1.0)} and spec.losses[1].lowest.latent == 0.001
    assert Spec.model_validate_json(spec.model_dump_json()) == spec == Spec.model_validate(spec.model_dump())
    refused = {
        "losses.0={rate_distortion: {low: 0.1, high: 1}}": "losses.0.rate_distortion: {low: 0.1, high: 1.0} is not "
        "allowed: a number, since a loss that reads nothing of a teacher is a control",
        "losses.0={preset: prim-l1, hyper_latent: {low: 0.1, high: 1}}": "losses.0.hyper_latent: 0.1 is not allowed: "
        "a weight that prim-l1 has: latent, rate_distortion, reconstruction",
    }
    for override, line in refused.items():
        with pytest.raises(SpecError) as caught:
            load_spec(GRID, [*ranged, override])
        assert caught.value.problems == (f"{GRID}: {line}",)
    with pytest.raises(SpecError) as caught:
        load_spec(GRID, ["search={method: random, replicates: 4}", "trials=500"])
    product = "4 students x (2 teachers x 3 losses + 1 control) x 4 replicates"
    assert caught.value.problems == (f"{GRID}: trials: 500 is not allowed: at most 112: {product}",)


def test_an_error_survives_the_way_between_processes() -> None:
    error = SpecError(["a: 1 is not allowed: 2", "b: 3 is not allowed: 4"])
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - what Ray does with an exception
    assert again.problems == error.problems and str(again) == "a: 1 is not allowed: 2\nb: 3 is not allowed: 4"


def test_a_specification_cannot_be_changed() -> None:
    spec = load_spec(GRID)
    with pytest.raises(ValueError, match="frozen"):
        spec.training.batch_size = 4


def test_resolved_makes_local_paths_absolute_and_nothing_else(tmp_path: Path) -> None:
    overrides = [
        "store=s3://bucket/x",
        "teachers.1.weights=zoo:mbt2018-mean",
        "students.0.init=random",
        "students.2.init=own.safetensors",
    ]
    spec = load_spec(GRID, [*overrides, "students.1.init=teacher-slice", "results=/tmp/elsewhere"]).resolved(tmp_path)
    assert spec.photographs.train == str(tmp_path / "data/quickstart/train")
    assert spec.photographs.validation == str(tmp_path / "data/quickstart/validation")
    assert spec.teachers[0].weights == str(tmp_path / "models/weights/teacher-hyperprior.safetensors")
    assert spec.students[2].init == str(tmp_path / "own.safetensors")
    assert (spec.store, spec.results, spec.teachers[1].weights) == (
        "s3://bucket/x",
        "/tmp/elsewhere",
        "zoo:mbt2018-mean",
    )
    assert (spec.students[0].init, spec.students[1].init) == ("random", "teacher-slice")
    assert spec.resolved(tmp_path / "other") == spec


def test_paths_are_looked_for(tmp_path: Path) -> None:
    check_paths(load_spec(GRID).resolved(ROOT))
    check_paths(load_spec(GRID, ["teachers.0.weights=zoo:mbt2018-mean"]).resolved(ROOT))
    own = ["students.0.init=own.safetensors"]
    with pytest.raises(SpecError) as raised:
        check_paths(load_spec(GRID, own).resolved(tmp_path))
    wanted = {
        "photographs.train": ("data/quickstart/train", "folder"),
        "photographs.validation": ("data/quickstart/validation", "folder"),
        "teachers.0.weights": ("models/weights/teacher-hyperprior.safetensors", "file"),
        "teachers.1.weights": ("models/weights/teacher-mean-scale.safetensors", "file"),
        "students.0.init": ("own.safetensors", "file"),
    }
    assert list(raised.value.problems) == [
        f"{field}: '{tmp_path / path}' is not allowed: a {kind} that exists" for field, (path, kind) in wanted.items()
    ]


def test_nothing_is_written_to_the_copy_that_a_ray_job_runs_in() -> None:
    copy = "/tmp/ray/session_1/runtime_resources/working_dir_files/_ray_pkg_1"
    written = {"results": f"{copy}/runs", "store": f"{copy}/runs/store"}
    with pytest.raises(SpecError) as raised:
        check_paths(load_spec(GRID).resolved(ROOT).model_copy(update=written))
    instead = "a folder that stays, such as /shared/runs, or a URL: Ray removes a job's folder"
    assert list(raised.value.problems) == [
        f"{field}: '{place}' is not allowed: {instead}" for field, place in written.items()
    ]


def test_photographs_may_be_on_s3(tmp_path: Path) -> None:
    places = ["photographs.train=s3://bucket/photographs", f"photographs.validation=file://{tmp_path}"]
    spec = load_spec(GRID, places).resolved(ROOT)
    assert (spec.photographs.train, spec.photographs.validation) == ("s3://bucket/photographs", f"file://{tmp_path}")
    check_paths(spec)
    with pytest.raises(SpecError, match=r"^photographs\.validation: 'file:///nowhere' is not allowed: a folder that"):
        check_paths(
            spec.model_copy(update={"photographs": Photographs(train="s3://bucket/x", validation="file:///nowhere")})
        )
    with pytest.raises(SpecError, match=r"photographs\.train: 'gs://bucket/x' is not allowed: a path, file:///"):
        load_spec(GRID, ["photographs.train=gs://bucket/x"])


def test_what_reads_inside_transforms_is_refused_where_they_are_compiled() -> None:
    given = ["training.compile=transforms", "losses.1={latent: 0.003, spatial_attention: 0.1}"]
    with pytest.raises(SpecError) as raised:
        load_spec(GRID, given)
    outside = "off with losses.1, whose spatial_attention reads inside g_a and g_s"
    assert str(raised.value) == f"{GRID}: training.compile: 'transforms' is not allowed: {outside}"
    assert load_spec(GRID, given[:1]).training.compile == "transforms"
    assert load_spec(GRID, ["training.compile=off"]).training.compile == "off"  # in YAML 1.1 a boolean


def test_the_quickstart_is_as_large_as_promised() -> None:
    spec = load_spec(QUICKSTART)
    assert spec.trials >= 12 and spec.controls and len(spec.teachers) == 2
    assert len(spec.students) >= 3 and len(spec.losses) >= 2
    assert spec.training.ranks_per_trial is None and spec.concurrent_trials is None  # trials side by side


@pytest.mark.slow  # a process each
@pytest.mark.parametrize(
    "arguments",
    [
        ["--spec", "absent.yaml"],
        ["--set", "training.zero_stage=7"],
        ["--set", "trials"],
        ["--set", "photographs.train=absent"],
        ["--set", "training.ranks_per_trial=3"],
    ],
)
def test_the_entry_point_exits_with_2_and_writes_nothing(tmp_path: Path, arguments: list[str]) -> None:
    command = [sys.executable, str(ROOT / "jobs" / "sweep_feds.py"), "--spec", str(GRID), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert done.stdout == "" and "Traceback" not in done.stderr
    assert arguments[1].partition("=")[0] in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_without_a_specification_the_entry_point_takes_the_quickstart() -> None:
    command = [sys.executable, "jobs/sweep_feds.py", "--set", "trials=0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (
        2,
        "jobs/specs/quickstart.yaml: trials: 0 is not allowed: a whole number of at least 1\n",
    )
