"""The search: chooses the next trial (without Ray).

With the method `grid` all trials are known beforehand, see space.py. With the other methods only the controls are. Each
later configuration is drawn by one of Optuna's samplers when it is asked for:

    random  from the whole space, students in turn
    tpe     TPESampler, students in turn. It uses only the order of values, so it is told a configuration's quantile in
            its own complexity class: by the BD-rates themselves, only the losses of large students would seem good
    nsga2   NSGAIISampler on BD-rate and ln MACs per pixel, steady-state; the student is drawn too. Stopped trials count
            like others, with their last values: most trials are stopped, and a stopped trial may be on the front

A configuration with replicates is told as their mean. A failed trial is not told. No configuration is drawn twice.

A draw depends only on the specification, the configuration's number and the set of records told so far: every draw has
its own study and its own sampler, seeded by (seed, number). So only the trials' records need to be saved, and a search
that resumes from them continues as if it had not been interrupted.

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
from orchestrator.sweep.choose.outcomes import Outcome, TrialFigures, class_quantiles, comparable, mean, outcome
from orchestrator.sweep.choose.space import Configuration, arm_label, by_size, labelled, number_of, numbered, trials
from orchestrator.trials.record import TrialRecord

Choices = Mapping[str, int | float | str]
RANDOM_DIVISOR = 4  # 1/4 of the drawn configurations is random: TPE's start-up trials, NSGA-II's first population
MAX_STARTUP_TRIALS, MAX_POPULATION = 10, 50  # Optuna's defaults
MAX_REDRAWS = 16  # of a configuration that was drawn before; after that it is drawn at random
MAX_HISTORY = 500  # newest configurations that a draw uses: more would take seconds, and TPE takes at most 25 as good


class Search:
    """Gives out a sweep's trials one by one (ask), and learns from those that ended (tell)."""

    def __init__(self, spec: Spec) -> None:
        """`spec`: of the sweep. Raises SpecError as `space.trials`."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._spec, self._method, self._replicates = spec, spec.search.method, spec.search.replicates
        self._known = trials(spec)
        self._controls = len(self._known) // self._replicates  # configurations; the drawn ones follow them
        self._losses = {index: (loss, label) for index, loss, label in labelled(spec)}  # by index in the spec
        self._parameters = _parameters(spec, list(self._losses)) if spec.trials > len(self._known) else {}
        self._student_order = [spec.students.index(student) for student in by_size(spec)]
        self._random_configurations = max(2, (spec.trials // self._replicates - self._controls) // RANDOM_DIVISOR)
        self._next = 1
        self._given: dict[int, Trial] = {}  # by number, from 1
        self._choices: dict[int, Choices] = {}  # by configuration, from 0
        self._drawn: set[tuple[Student, str | None, Loss]] = set()
        self._told: dict[int, dict[int, Outcome]] = {}  # configuration -> trial's number -> outcome

    def resume(self, records: Iterable[TrialRecord]) -> list[Trial]:
        """Restore the state from the records of all trials that were given out before.

        Returns:
            The trials that have not ended, in the order in which they were given out.
        """
        by_number = {number_of(record.trial_id): record for record in records}
        for number, record in sorted(by_number.items()):
            self._give(number, record.choices)
            self.tell(record.trial_id, record)
        return [self._given[number] for number, record in sorted(by_number.items()) if not record.ended]

    def ask(self) -> Trial | None:
        """The next trial; None: `spec.trials` were given out."""
        while self._next in self._given:
            self._next += 1
        return self._give(self._next, None) if self._next <= self._spec.trials else None

    def tell(self, trial_id: str, record: TrialFigures) -> None:
        """Learn from a trial's record; the record of a trial that failed or has not ended is ignored."""
        number = number_of(trial_id)
        if number > len(self._known) and record.ended:
            self._told.setdefault(self._configuration_of(number), {})[number] = outcome(record)

    def _configuration_of(self, number: int) -> int:
        return (number - 1) // self._replicates

    def _give(self, number: int, choices: Choices | None) -> Trial:
        """The trial of this number, with the choices given, else those of its replicates, else new ones."""
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
            # random.random() is the only method of its module whose sequence is promised never to change
            seed = int(random.Random(f"search {self._spec.seed} {index} {attempt}").random() * 2**32)
            study.sampler = self._sampler(seed) if attempt < MAX_REDRAWS else RandomSampler(seed)
            choices = self._suggested(study.ask(), index)
            if self._configuration(choices)[:3] not in self._drawn:
                break
        return choices

    def _suggested(self, trial: optuna.Trial, index: int) -> Choices:
        """Choices by the specification's names: student, teacher, loss, and the loss's ranged weights, such as
        losses.1.latent."""
        choices: dict[str, int | float | str] = {}
        if self._method == "nsga2":
            # NSGA-II crosses only parameters that all trials have. So all are drawn; the weights of other losses than
            # the trial's own have no effect.
            names = list(self._parameters)
        else:
            names = ["teacher", "loss"]
            choices["student"] = self._turn(index)
        for name in names:
            choices[name] = _suggest(trial, name, self._parameters[name])
        fitting = self._spec.teachers_of(self._spec.students[int(choices["student"])])
        if choices["teacher"] not in fitting:
            choices["teacher"] = fitting[index % len(fitting)]
        for name in self._losses[int(choices["loss"])][0].ranges:
            weight = _weight(choices["loss"], name)
            choices[weight] = _suggest(trial, weight, self._parameters[weight])  # the same value if it was drawn above
        return choices

    def _turn(self, index: int) -> int:
        """Whose turn it is: the students', one after the other, without those whose combinations were all drawn."""
        first, order = index - self._controls, self._student_order
        turns = [order[(first + offset) % len(order)] for offset in range(len(order))]
        return next((student for student in turns if self._has_room(self._spec.students[student])), turns[0])

    def _has_room(self, student: Student) -> bool:
        losses = [loss for loss, _ in self._losses.values()]
        drawn = sum(student == of for of, *_ in self._drawn)
        return any(loss.ranges for loss in losses) or drawn < len(self._spec.teachers_of(student)) * len(losses)

    def _sampler(self, seed: int) -> BaseSampler:
        if self._method == "tpe":
            return TPESampler(n_startup_trials=min(self._random_configurations, MAX_STARTUP_TRIALS), seed=seed)
        if self._method == "nsga2":
            return NSGAIISampler(population_size=min(self._random_configurations, MAX_POPULATION), seed=seed)
        return RandomSampler(seed)

    def _history(self) -> list[FrozenTrial]:
        """The newest drawn configurations with an outcome, in the order of their numbers."""
        told = {index: mean(list(self._told[index].values())) for index in sorted(self._told)[-MAX_HISTORY:]}
        outcomes = list(told.values())
        if self._method == "tpe":
            ranked = zip(told, outcomes, class_quantiles(outcomes), strict=True)
            return [self._for_tpe(index, outcome, quantile) for index, outcome, quantile in ranked]
        if self._method == "nsga2":
            valued = zip(told, outcomes, comparable([outcome.last for outcome in outcomes]), strict=True)
            return [self._for_nsga2(index, outcome, value) for index, outcome, value in valued]
        return []

    def _for_tpe(self, index: int, outcome: Outcome, quantile: float) -> FrozenTrial:
        parameters = {name: choice for name, choice in self._choices[index].items() if name != "student"}
        distributions = {name: self._parameters[name] for name in parameters}
        if outcome.images_seen == self._spec.early_stopping.rungs[-1]:
            return create_trial(value=quantile, params=parameters, distributions=distributions)
        return create_trial(
            state=TrialState.PRUNED,
            intermediate_values={outcome.images_seen: quantile},
            params=parameters,
            distributions=distributions,
        )

    def _for_nsga2(self, index: int, outcome: Outcome, value: float) -> FrozenTrial:
        # All outcomes are one generation, so parents are the best of all. Optuna's own numbering depends on what had
        # been told at each draw, which would have to be saved; numbering by turn found no better losses on simulated
        # curves.
        generation = 0
        return create_trial(
            values=[value, math.log(outcome.macs_per_pixel)],
            params=dict(self._choices[index]),
            distributions=self._parameters,
            system_attrs={NSGAIISampler._get_generation_key(): generation},
        )


def _weight(loss: object, name: str) -> str:
    """The name of a loss's ranged weight among the choices."""
    return f"losses.{loss}.{name}"


def _parameters(spec: Spec, losses: list[int]) -> dict[str, BaseDistribution]:
    """The distribution of every choice. `losses`: indices into `spec.losses`."""
    parameters: dict[str, BaseDistribution] = {
        "student": CategoricalDistribution(range(len(spec.students))),
        "teacher": CategoricalDistribution([teacher.name for teacher in spec.teachers]),
        "loss": CategoricalDistribution(losses),
    }
    for index in losses:
        for name, allowed in spec.losses[index].ranges.items():
            parameters[_weight(index, name)] = FloatDistribution(allowed.low, allowed.high, log=True)
    return parameters


def _suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> int | float | str:
    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(name, distribution.low, distribution.high, log=True)
    assert isinstance(distribution, CategoricalDistribution)
    choice = trial.suggest_categorical(name, distribution.choices)
    assert choice is not None
    return choice
