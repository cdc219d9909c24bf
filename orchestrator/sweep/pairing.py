"""The second stage of a shelf: pairs of halves are scored, and those on the front become trials of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.results.files import read_file, write_file
from orchestrator.results.shelf import SHELF, ShelfFile
from orchestrator.spec.sections import EarlyStopping
from orchestrator.spec.spec import Spec
from orchestrator.spec.trial import Trial
from orchestrator.store.store import Store
from orchestrator.sweep.choose.pairs import (
    best_halves,
    joined_images,
    pair_trials,
    pairs_of,
    worth_joining,
    worth_scoring,
)
from orchestrator.sweep.choose.space import number_of
from orchestrator.sweep.front.measures import Measures
from orchestrator.sweep.front.pairs import make_first_weights, score
from orchestrator.sweep.plan import Plan
from orchestrator.trials.files import read_trials, trial_file
from orchestrator.trials.record import TrialRecord


@dataclass(frozen=True, kw_only=True)
class Joining:
    """The trials that train pairs on."""

    spec: Spec  # with their number and their one rung
    trials: tuple[Trial, ...]
    first_weights: Mapping[tuple[str, str], str]  # pair of trials -> name in the store


def pairs_are_joined(run: Store) -> bool:
    """Whether pairs were chosen, and all that were have been trained on. Raises FormatError, StoreError."""
    shelf = read_file(run, SHELF, ShelfFile)
    ended = {record.trial_id for record in read_trials(run) if record.ended}
    return shelf is not None and all(pair.joined in ended for pair in shelf.pairs if pair.joined)


def pairs_to_join(plan: Plan, run: Store, measures: Measures, say: Callable[[str], None]) -> Joining:
    """Score the pairs, unless that was done, and make the first weights of those that are trained on. Ray must run.

    Args:
        plan: of the sweep, whose halves have ended.
        run: the run folder.
        measures: the anchor, and the complexities of halves and pairs.
        say: takes a line of progress.

    Raises:
        FormatError: shelf.json is of another format.
        LostWeights: the weights of a half are gone or damaged.
        StoreError: a store cannot be used.
    """
    spec, records = plan.spec, read_trials(run)
    encoders, decoders = best_halves(records, "encoder"), best_halves(records, "decoder")
    halves = {half.trial_id: half for half in (*encoders, *decoders)}
    weights = {name: str(half.weights_digest) for name, half in halves.items()}
    shelf = read_file(run, SHELF, ShelfFile)
    if shelf is None or (shelf.weights, shelf.anchor_digest) != (weights, measures.anchor.digest):
        _forget(run, records, say)
        pairs = pairs_of(encoders, decoders, measures.complexity)
        wanted = worth_scoring(pairs, spec.shelf, spec.axes)
        scored = {pair.halves: pair for pair in score(wanted, halves, run, measures.anchor, plan.validation, say)}
        pairs = [scored.get(pair.halves, pair) for pair in pairs]
        chosen = [pair.halves for pair in worth_joining(pairs, spec.shelf, spec.axes)]
        trials = pair_trials(spec, [(halves[str(encoder)], halves[str(decoder)]) for encoder, decoder in chosen])
        names: dict[tuple[str | None, str | None] | None, str] = {trial.pair: trial.trial_id for trial in trials}
        shelf = ShelfFile(
            teacher=spec.teachers[0].name,
            anchor_digest=measures.anchor.digest,
            weights=weights,
            pairs=tuple(pair.model_copy(update={"joined": names.get(pair.halves)}) for pair in pairs),
        )
        write_file(run, SHELF, shelf)
        say(f"pairs: {len(wanted)} scored, {len(chosen)} of the front of cost J are trained on")
    joined = sorted((pair for pair in shelf.pairs if pair.joined), key=lambda pair: number_of(str(pair.joined)))
    chosen_halves = [(halves[str(pair.encoder)], halves[str(pair.decoder)]) for pair in joined]
    trials = pair_trials(spec, chosen_halves)
    early = EarlyStopping(rule="none", rungs=(joined_images(spec),))
    return Joining(
        spec=spec.model_copy(update={"trials": len(trials), "early_stopping": early}),
        trials=trials,
        first_weights=make_first_weights(chosen_halves, run, Store(spec.store)),
    )


def _forget(run: Store, records: Sequence[TrialRecord], say: Callable[[str], None]) -> None:
    """Deletes the records of pairs that began with other halves than there are now."""
    stale = [record for record in records if record.pair is not None]
    for record in stale:
        run.delete(trial_file(record.trial_id))
    if stale:
        say(f"pairs: {len(stale)} were of other halves, and are made again")
