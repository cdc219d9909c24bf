"""Fills the feature store ahead of a sweep, and maintains it: lists, checks and prunes it.

On this machine:
    python jobs/cache_features.py --spec jobs/specs/quickstart.yaml --plan    # what it would take; writes nothing
    python jobs/cache_features.py --spec jobs/specs/quickstart.yaml --taps g_a.3:spatial
    python jobs/cache_features.py ls
    python jobs/cache_features.py verify --store s3://bucket/store --drop
    python jobs/cache_features.py prune --store s3://bucket/store --older-than 30 --orphans   # --yes: really

On a running Ray (photographs, weights and store where every node sees them):
    ray job submit --working-dir . -- python jobs/cache_features.py --spec jobs/specs/quickstart.yaml \\
      --set results=/shared/runs --set store=s3://bucket/store
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from models.one_line import OneLineError
from models.weights import WeightsError
from orchestrator.caches import CacheError, settle_caches
from orchestrator.features.format.key import TapError
from orchestrator.features.keep.listing import ls, table
from orchestrator.features.keep.prune import Choice, prune
from orchestrator.features.keep.verify import verify
from orchestrator.logs import exit_code, say, warn
from orchestrator.photographs.crops import CropError
from orchestrator.photographs.photos import PhotographError
from orchestrator.spec import allowed
from orchestrator.spec.load import load_spec
from orchestrator.spec.messages import Parser, SpecError, without_credentials
from orchestrator.spec.section import refusal
from orchestrator.spec.spec import Spec
from orchestrator.store.errors import StoreError
from orchestrator.store.store import Store

QUICKSTART = "jobs/specs/quickstart.yaml"  # in the repository's root, as the paths inside it
DAY_S = 86_400.0


def main(arguments: list[str] | None = None) -> int:
    """The exit code.

    0: done; 1: the store or Ray cannot be used, or something in the store is damaged; 2: the specification, a
    photograph or a tap cannot be used; 75: SIGTERM, and the same command goes on; 130: interrupted.
    """
    words = sys.argv[1:] if arguments is None else arguments
    given = _parser().parse_args(words if words[:1] in (["-h"], ["--help"]) or _named(words) else ["fill", *words])
    try:
        for line in settle_caches():
            warn(line)
        return {"fill": _fill, "ls": _ls, "verify": _verify, "prune": _prune}[given.action](given)
    except (SpecError, PhotographError, CropError, WeightsError, TapError, CacheError) as error:
        print(without_credentials(str(error)), file=sys.stderr)
        return 2
    except (OneLineError, OSError) as error:  # the store's, features', or Ray's that cannot be started
        print(without_credentials(str(error)), file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True, metavar="fill | ls | verify | prune")
    parsers = {
        "fill": actions.add_parser("fill", help="makes what the store lacks; what a call without an action does"),
        "ls": actions.add_parser("ls", help="the feature plans in the store, their bytes, and who uses them"),
        "verify": actions.add_parser("verify", help="reads every object that a ledger lists"),
        "prune": actions.add_parser("prune", help="says what can go, and with --yes removes it"),
    }
    for action, of_action in parsers.items():
        of_action.add_argument("--spec", default=QUICKSTART, help="a YAML file; default: %(default)s")
        of_action.add_argument(
            "--set", action="append", default=[], metavar="FIELD=VALUE", help="overrides a field of it"
        )
        if action != "fill":
            of_action.add_argument("--store", help="a folder or s3://bucket/prefix, instead of the specification's")
    parsers["fill"].add_argument("--taps", nargs="+", default=[], metavar="TAP", help="stored beside what losses read")
    parsers["fill"].add_argument("--plan", action="store_true", help="only say what it would take")
    source = "only what belongs to this teacher (its name, or 8 digits or more of its digest), or to pixels"
    parsers["verify"].add_argument("--source", metavar="TEACHER", help=source)
    parsers["verify"].add_argument("--drop", action="store_true", help="remove what is damaged; a fill makes it anew")
    parsers["prune"].add_argument("--source", metavar="TEACHER", help=source)
    parsers["prune"].add_argument("--older-than", type=days, metavar="DAYS", help="last used so long ago")
    parsers["prune"].add_argument("--orphans", action="store_true", help="what belongs to no ledger")
    parsers["prune"].add_argument("--yes", action="store_true", help="do it")
    return parser


def _fill(given: argparse.Namespace) -> int:
    spec = _spec(given)
    from orchestrator.sweep.cluster import connected
    from orchestrator.sweep.plan import Plan, check_servers
    from orchestrator.sweep.preemption import EXIT_CODE, Preempted, SigtermHandler
    from orchestrator.sweep.prefill import estimate_prefill, prefill, wider

    plan = Plan.of(spec)
    wider(plan, given.taps)  # a wrong tap is found before Ray starts
    check_servers(Store(plan.spec.store))
    sigterm = SigtermHandler(spec.preemption.grace_s)
    try:
        with sigterm.installed(), connected():
            sigterm.install()
            if given.plan:
                for line in estimate_prefill(plan, given.taps):
                    say(line)
                return 0
            report = prefill(plan, given.taps, say)
    except Preempted:
        print("preempted; the same command goes on with what is missing", file=sys.stderr)
        return EXIT_CODE
    shards = f"{report.reused_shards} shards reused, {report.computed_shards} computed"
    say(f"features: {shards}, {report.bytes / 1e6:.0f} MB in {report.seconds:.0f} s")
    return 0


def _ls(given: argparse.Namespace) -> int:
    for line in table(*ls(_store(given))):
        say(line)
    return 0


def _verify(given: argparse.Namespace) -> int:
    return 1 if verify(_store(given), source=given.source, drop=given.drop, say=say) else 0


def _prune(given: argparse.Namespace) -> int:
    if given.older_than is None and given.source is None and not given.orphans:
        raise SpecError(["prune: say what may go: --older-than DAYS, --source TEACHER or --orphans"])
    older_than_s = None if given.older_than is None else given.older_than * DAY_S
    choice = Choice(older_than_s=older_than_s, source=given.source, orphans=given.orphans)
    prune(_store(given), choice, yes=given.yes, say=say)
    return 0


def _named(words: list[str]) -> bool:
    return bool(words) and not words[0].startswith("-")


def _spec(given: argparse.Namespace) -> Spec:
    return load_spec(given.spec, given.set).resolved(Path.cwd())


def _store(given: argparse.Namespace) -> Store:
    """The store that is meant.

    Raises:
        SpecError: --store is no place.
        StoreError: it is a folder that is not there: a listing of nothing would hide a wrong name.
    """
    if given.store is not None:
        try:
            allowed.place(given.store)
        except ValueError as error:
            raise SpecError([refusal("--store", given.store, str(error))]) from None
    store = Store(_spec(given).store if given.store is None else given.store)
    if store.folder is not None and not store.folder.exists():
        raise StoreError(f"{store.url}: there is no such folder: a sweep or a fill makes it")
    return store


def days(text: str) -> float:
    """Raises ValueError, from which argparse makes a line."""
    number = float(text)
    if not 0 <= number < math.inf:
        raise ValueError
    return number


if __name__ == "__main__":
    sys.exit(exit_code(main))
