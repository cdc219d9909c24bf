"""Which trial is next (without Ray).

With the method `grid` all trials are known beforehand, see space.py. With the others the controls are, and each
configuration after them is drawn by one of Optuna's samplers when it is asked for:

    random  from the whole space, students in turns
    tpe     TPESampler, students in turns. It reads nothing of a value but the order, so it is told a configuration's
            place in its own complexity class: by BD-rates themselves only losses of large students would seem good
    nsga2   NSGAIISampler on BD-rate and ln MACs per pixel, steady-state; the student is drawn too. Stopped trials count
            like others, with their last values: most are stopped, and a stopped trial may be on the front

With replicates a configuration is told by their mean. A failed trial tells nothing. No configuration is drawn twice.

A draw is a function of the specification, its number and the records told so far, in any order: each has a study and a
sampler of its own, seeded by (seed, number). So nothing is saved but the trials' records, and a search that takes them
over goes on as if undisturbed.

TPE: Bergstra et al., NeurIPS 2011. NSGA-II: Deb et al., IEEE Trans. Evol. Comp. 6(2), 2002.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Mapping

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from orchestrator.spec.loss import Loss
from orchestrator.spec.sections import Student
from orchestrator.spec.spec import Spec
from orchestrator.spec.trial import Trial
from orchestrator.sweep.choose.outcomes import Outcome, TrialFigures, comparable, mean, outcome, places
from orchestrator.sweep.choose.space import Configuration, arm_label, by_size, labelled, number_of, numbered, trials
from orchestrator.trials.record import TrialRecord

Choices = Mapping[str, int | float | str]
FIRST = 4  # the first 1/FIRST of the drawn configurations is random: TPE's start, NSGA-II's first population
MOST_AT_START, MOST_IN_POPULATION = 10, 50  # Optuna's own
REDRAWS = 16  # of a configuration that was drawn before; then it is drawn at random
NEWEST = 500  # configurations that a draw reads: with more it would take seconds, and TPE takes no more than 25 as good


class Search:
    """Gives out a sweep's trials, and hears of those that ended."""

    def __init__(self, spec: Spec) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._spec, self._method, self._replicates = spec, spec.search.method, spec.search.replicates
        self._known = trials(spec)
        self._controls = len(self._known) // self._replicates  # configurations; what is drawn counts from here
        self._losses = {place: (loss, label) for place, loss, label in labelled(spec)}
        self._parameters = _parameters(spec, list(self._losses)) if spec.trials > len(self._known) else {}
        self._turns = [spec.students.index(student) for student in by_size(spec)]
        self._first = max(2, (spec.trials // self._replicates - self._controls) // FIRST)
        self._next = 1
        self._given: dict[int, Trial] = {}  # by number, from 1
        self._choices: dict[int, Choices] = {}  # by configuration, from 0
        self._drawn: set[tuple[Student, str | None, Loss]] = set()
        self._told: dict[int, dict[int, Outcome]] = {}  # configuration -> number -> its outcome

    def resume(self, records: Iterable[TrialRecord]) -> list[Trial]:
        """Takes over the records of all trials that were given out before.

        Returns:
            Those of them that have not ended, in the order in which they were given out.
        """
        by_number = {number_of(record.trial_id): record for record in records}
        for number, record in sorted(by_number.items()):
            self._give(number, record.choices)
            self.tell(record.trial_id, record)
        return [self._given[number] for number, record in sorted(by_number.items()) if not record.ended]

    def ask(self) -> Trial | None:
        """The next trial; None if `spec.trials` were given out."""
        while self._next in self._given:
            self._next += 1
        return self._give(self._next, None) if self._next <= self._spec.trials else None

    def tell(self, trial_id: str, record: TrialFigures) -> None:
        """Hears of a trial by its record; of one that failed or has not ended nothing follows."""
        number = number_of(trial_id)
        if number > len(self._known) and record.ended:
            self._told.setdefault(self._configuration_of(number), {})[number] = outcome(record)

    def _configuration_of(self, number: int) -> int:
        return (number - 1) // self._replicates

    def _give(self, number: int, choices: Choices | None) -> Trial:
        """The trial of this number, with the choices made before for it or for a replicate, else with new ones."""
        if number <= len(self._known):
            trial = self._known[number - 1]
        else:
            index = self._configuration_of(number)
            choices = choices or self._choices.get(index) or self._draw(index)
            configuration = self._configuration(choices)
            self._choices[index] = choices
            self._drawn.add(configuration[:3])
            trial = numbered(self._spec, number, configuration, choices)
        self._given[number] = trial
        return trial

    def _configuration(self, choices: Choices) -> Configuration:
        loss, label = self._losses[int(choices["loss"])]
        teacher = str(choices["teacher"])
        weights = {name: float(choices[_weight(choices["loss"], name)]) for name in loss.ranges}
        student = self._spec.students[int(choices["student"])]
        return Configuration(student, teacher, loss.at(weights), arm_label(teacher, label))

    def _draw(self, index: int) -> Choices:
        directions = ["minimize"] * (2 if self._method == "nsga2" else 1)
        study = optuna.create_study(directions=directions)
        study.add_trials(self._history())
        for attempt in itertools.count():
            # of the module random only the method random() is promised never to change
            seed = int(random.Random(f"search {self._spec.seed} {index} {attempt}").random() * 2**32)
            study.sampler = self._sampler(seed) if attempt < REDRAWS else RandomSampler(seed)
            choices = self._suggested(study.ask(), index)
            if self._configuration(choices)[:3] not in self._drawn:
                break
        return choices

    def _suggested(self, trial: optuna.Trial, index: int) -> Choices:
        """By names as in a specification: student, teacher, loss, and the loss's ranged weights, losses.1.latent."""
        choices: dict[str, int | float | str] = {}
        if self._method == "nsga2":
            # It crosses what all trials have. So all of it is drawn: weights of other losses than the trial's lie
            # silent, like recessive genes.
            names = list(self._parameters)
        else:
            names = ["teacher", "loss"]
            choices["student"] = self._turns[(index - self._controls) % len(self._turns)]
        for name in names:
            choices[name] = _suggest(trial, name, self._parameters[name])
        for name in self._losses[int(choices["loss"])][0].ranges:
            weight = _weight(choices["loss"], name)
            choices[weight] = _suggest(trial, weight, self._parameters[weight])  # the same again if it was drawn
        return choices

    def _sampler(self, seed: int) -> BaseSampler:
        if self._method == "tpe":
            return TPESampler(n_startup_trials=min(self._first, MOST_AT_START), seed=seed)
        if self._method == "nsga2":
            return NSGAIISampler(population_size=min(self._first, MOST_IN_POPULATION), seed=seed)
        return RandomSampler(seed)

    def _history(self) -> list[FrozenTrial]:
        """The newest drawn configurations that were told, in the order of their numbers."""
        told = {index: mean(list(self._told[index].values())) for index in sorted(self._told)[-NEWEST:]}
        outcomes = list(told.values())
        if self._method == "tpe":
            ranked = zip(told, outcomes, places(outcomes), strict=True)
            return [self._ranked(index, each, place) for index, each, place in ranked]
        if self._method == "nsga2":
            valued = zip(told, outcomes, comparable([each.last for each in outcomes]), strict=True)
            return [self._valued(index, each, value) for index, each, value in valued]
        return []

    def _ranked(self, index: int, each: Outcome, place: float) -> FrozenTrial:
        parameters = {name: choice for name, choice in self._choices[index].items() if name != "student"}
        distributions = {name: self._parameters[name] for name in parameters}
        if each.images_seen == self._spec.early_stopping.rungs[-1]:
            return create_trial(value=place, params=parameters, distributions=distributions)
        return create_trial(
            state=TrialState.PRUNED,
            intermediate_values={each.images_seen: place},
            params=parameters,
            distributions=distributions,
        )

    def _valued(self, index: int, each: Outcome, value: float) -> FrozenTrial:
        # Parents are the best of all that was told. Optuna would number generations by what had been told when each was
        # drawn, which would have to be saved; numbered by their turn they found no better losses on a made-up curve.
        generation = 0
        return create_trial(
            values=[value, math.log(each.macs_per_pixel)],
            params=dict(self._choices[index]),
            distributions=self._parameters,
            system_attrs={NSGAIISampler._get_generation_key(): generation},
        )


def _weight(loss: object, name: str) -> str:
    return f"losses.{loss}.{name}"


def _parameters(spec: Spec, losses: list[int]) -> dict[str, BaseDistribution]:
    found: dict[str, BaseDistribution] = {
        "student": CategoricalDistribution(range(len(spec.students))),
        "teacher": CategoricalDistribution([teacher.name for teacher in spec.teachers]),
        "loss": CategoricalDistribution(losses),
    }
    for place in losses:
        for name, each in spec.losses[place].ranges.items():
            found[_weight(place, name)] = FloatDistribution(each.low, each.high, log=True)
    return found


def _suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> int | float | str:
    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(name, distribution.low, distribution.high, log=True)
    assert isinstance(distribution, CategoricalDistribution)
    choice = trial.suggest_categorical(name, distribution.choices)
    assert choice is not None
    return choice
