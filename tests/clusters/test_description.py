"""A cluster's description: what is refused is one line that names the field, the value and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusters.description import Cluster, load_cluster
from clusters.job import Job, check
from orchestrator.spec.load import load_spec
from orchestrator.spec.messages import SpecError
from orchestrator.worker_settings import WORKER_SETTINGS

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "jobs" / "specs" / "quickstart.yaml"
SPECS = sorted((ROOT / "clusters" / "specs").glob("*.yaml"))


def cluster(*overrides: str) -> Cluster:
    return load_cluster(ROOT / "clusters" / "specs" / "ray.yaml", overrides)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_descriptions_shipped_are_sound(path: Path) -> None:
    load_cluster(path)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("nodes=0", "nodes: 0 is not allowed: a whole number of at least 1"),
        (
            "mlflow=http://me:word@host",
            "mlflow: 'http://***@host' is not allowed: http://HOST:PORT or https://HOST, with",
        ),
        ("s3_endpoint=localhost:9000", "s3_endpoint: 'localhost:9000' is not allowed: http://HOST:PORT"),
        ("results=s3://key:secret@bucket/a", "results: 's3://***@bucket/a' is not allowed: a URL without credentials"),
        ("results=s3://bucket/a", "mlflow: nothing is not allowed: http://HOST:PORT, since results on S3"),
        ("interface=eth 0", "interface: 'eth 0' is not allowed: the name of a network interface, such as ib0"),
        ("nodes", "--on nodes: not allowed: FIELD=VALUE"),
        (
            "nodes=99999999999999999999",
            "nodes: 99999999999999999999 is not allowed: a whole number of at least 1 and of at",
        ),
        ("node_disk=rel/x", "node_disk: 'rel/x' is not allowed: an absolute path"),
        ("node_disk=/opt/../x", "node_disk: '/opt/../x' is not allowed: an absolute path"),
        ("image=a b", "image: 'a b' is not allowed: [HOST[:PORT]/]NAME[:TAG], the name in small letters"),
        ("image=Registry/Lic:1", "image: 'Registry/Lic:1' is not allowed: [HOST[:PORT]/]NAME[:TAG]"),
        ("image=lic:1:2", "image: 'lic:1:2' is not allowed: [HOST[:PORT]/]NAME[:TAG]"),
        ("image=docker://me:word@registry/x", "is not allowed: an image without credentials"),
        ("image=me:word@registry/x", "is not allowed: an image without credentials"),
        ("ray.head=a;b", "ray.head: 'a;b' is not allowed: a host's name or address"),
        ("ray.head.x=2", "ray.head: {x: 2} is not allowed: text or nothing"),
        (
            "ray.dashboard=http://127.0.0.1:99999",
            "ray.dashboard: 'http://127.0.0.1:99999' is not allowed: http://HOST:PORT",
        ),
        ("ray.dashboard=http://h/$(id)", "ray.dashboard: 'http://h/$(id)' is not allowed: http://HOST:PORT"),
        ("grace_s=5", "grace_s: 5 is not allowed: a whole number of at least 20"),
        ("slurm.time_limit=soon", "slurm.time_limit: 'soon' is not allowed: a time such as 8:00:00"),
        ("slurm.partiton=gpu", "slurm.partiton: unknown key, did you mean partition?"),
        ('slurm.partition="a\\nb"', r"slurm.partition: 'a\nb' is not allowed: one line of text"),
        ("kubernetes.min_nodes=9", "kubernetes.min_nodes: 9 is not allowed: at most 1, the number of nodes"),
        ("kubernetes.claim={name: 0, path: /data}", "kubernetes.claim.name: 0 is not allowed: it is a number; as text"),
        ("kubernetes.claim={name: a, path: /data, pat: 1}", "kubernetes.claim.pat: unknown key, did you mean path?"),
        ("kubernetes.claim={path: /data}", "kubernetes.claim.name: missing: "),
        ("kubernetes.node_selector={pool: 1}", "kubernetes.node_selector.pool: 1 is not allowed: it is a number; as"),
        ("kubernetes.node_selector=7", "node_selector: 7 is not allowed: a section whose every value is text"),
        ("results=~nobody-at-all/runs", "results: '~nobody-at-all/runs' is not allowed: a path without ~, whose home"),
        ("kubernetes.secret=My_Secret", "kubernetes.secret: 'My_Secret' is not allowed: lower-case letters, digits"),
    ],
)
def test_what_cannot_be_is_refused(override: str, line: str) -> None:
    with pytest.raises(SpecError) as refused:
        cluster(override)
    assert len(refused.value.problems) == 1 and line in str(refused.value)


@pytest.mark.parametrize(
    "image",
    ["lic:1", "localhost:5000/lic-d_i.s:v1", "Registry.example.org/a/b", f"docker.io/a/b:1@sha256:{64 * 'a'}", "a__b"],
)
def test_an_image_s_name_is_taken(image: str) -> None:
    assert cluster(f"image={image}").image == image


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("training.ranks_per_trial=8", "training.ranks_per_trial: 8 is not allowed: at most 2, the CPUs of 1 nodes"),
        ("training.gpus_per_rank=1", "training.gpus_per_rank: 1.0 is not allowed: less for 1 ranks a trial: 0 GPUs"),
    ],
)
def test_a_trial_that_fits_nowhere_is_refused(field: str, line: str) -> None:
    with pytest.raises(SpecError, match=line):
        check(cluster(), load_spec(QUICKSTART, [field]), [])


def test_a_rank_s_gpus_are_on_one_node() -> None:
    two = cluster("nodes=2", "gpus_per_node=1")
    check(two, load_spec(QUICKSTART, ["training.gpus_per_rank=1", "training.ranks_per_trial=2"]), [])
    with pytest.raises(SpecError, match="less for 1 ranks a trial: 2 GPUs, 1 on each node"):
        check(two, load_spec(QUICKSTART, ["training.gpus_per_rank=2", "training.ranks_per_trial=1"]), [])


@pytest.mark.parametrize(
    "field", ["results=/mine", "store=s3://mine/x", "node_cache.folder=/x", "preemption={grace_s: 5}"]
)
def test_what_the_cluster_says_is_not_the_specification_s_to_say(field: str) -> None:
    with pytest.raises(SpecError, match=r"--set .*: not allowed: the cluster says it, so --on "):
        check(cluster(), load_spec(QUICKSTART, [field]), [field])


def test_a_job_s_arguments_are_a_specification_s() -> None:
    job = Job(name="quickstart", spec=QUICKSTART, overrides=("seed=3",), root=ROOT)
    words = job.arguments("a b.yaml", cluster("node_disk=/mine").overrides)
    assert words[:3] == ("jobs/sweep_feds.py", "--spec", "a b.yaml")
    spec = load_spec(QUICKSTART, [words[i + 1] for i, word in enumerate(words) if word == "--set"])
    assert (spec.seed, spec.results, spec.node_cache.folder) == (3, "/tmp/lic-distillery/runs", "/mine")
    assert spec.preemption.grace_s == 50


def test_no_variable_of_a_cluster_is_secret() -> None:
    environment = cluster("mlflow=http://mlflow:5000", "s3_endpoint=http://s3:8333", "interface=ib0").environment
    assert environment == WORKER_SETTINGS | {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "RAY_USAGE_STATS_ENABLED": "0",
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
        "AWS_ENDPOINT_URL": "http://s3:8333",
        "GLOO_SOCKET_IFNAME": "ib0",
        "NCCL_SOCKET_IFNAME": "ib0",
    }
