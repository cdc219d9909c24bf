"""What the page on Kubernetes names exists, and what it shows is accepted."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise

import pytest

from clusters import kubernetes
from clusters.description import load_cluster
from clusters.job import check
from orchestrator.spec.load import load_spec
from tests.clusters.descriptions import KUSTOMIZED, ROOT

PAGE = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
WHOLE = PAGE.replace("\\\n", " ")
LAUNCHES = re.findall(r"^    python (jobs/launch\.py kubernetes .*)$", WHOLE, flags=re.MULTILINE)


def test_files_and_folders_that_it_names_exist() -> None:
    named = re.findall(r"\]\((?!https?:)([^)#]+)", PAGE)
    assert named and not [path for path in named if not (ROOT / "docs" / path).exists()]
    words = re.findall(r"(?<![\w./])(?:clusters|jobs)/[\w./-]*\w", PAGE)
    assert words and not [path for path in words if not (ROOT / path).exists()]
    assert all(f"| `{name}` |" in PAGE for name in KUSTOMIZED)


@pytest.mark.parametrize("line", LAUNCHES)
def test_launches_that_it_shows_are_accepted(line: str) -> None:
    words = shlex.split(line)
    pairs = [(flag, value) for flag, value in pairwise(words) if flag.startswith("--")]
    given, overrides = dict(pairs), [value for flag, value in pairs if flag == "--set"]
    cluster, spec = load_cluster(ROOT / given["--cluster"]), load_spec(ROOT / given["--spec"], overrides)
    check(cluster, spec, overrides)
    kubernetes.check(cluster, spec)
