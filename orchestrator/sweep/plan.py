"""A sweep's plan: all that follows from its specification and the photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from models.weights import digest, read_metadata
from orchestrator.distill import targets
from orchestrator.distill.refit.stored import StartWork, start_work
from orchestrator.distill.targets import entropy_tap
from orchestrator.distill.trial_data import SharedData, StartKey, start_key
from orchestrator.features.format.key import FeaturePlan, Tap, TeacherWeights, plan_features
from orchestrator.features.read.channel_bits import channel_bits
from orchestrator.photographs.columns import PhotographTable
from orchestrator.photographs.crops import Crop, CropPlan, minimum_side, plan_crops, validation_crops
from orchestrator.photographs.photos import Photograph
from orchestrator.spec.messages import SpecError
from orchestrator.spec.networks import check_networks, with_halves, with_inherited, with_zoo_files, zoo_folder
from orchestrator.spec.section import refusal
from orchestrator.spec.sections import Student
from orchestrator.spec.spec import Spec, check_paths
from orchestrator.spec.trial import Trial
from orchestrator.store.place import unusable
from orchestrator.store.store import Store
from orchestrator.sweep.choose.pairs import pair_students
from orchestrator.sweep.choose.space import reachable
from orchestrator.sweep.run_folder.inputs import inputs_of
from orchestrator.sweep.surveying import survey_both


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that follows from the specification and the photographs; made before anything is written."""

    spec: Spec
    trials: tuple[Trial, ...]  # `space.reachable`: they need all networks and taps that the sweep's trials may need
    train: PhotographTable
    crops: CropPlan
    validation: tuple[tuple[Photograph, Crop], ...]
    pixels: FeaturePlan
    features: dict[str, FeaturePlan]  # teacher -> its taps, for teachers that a trial may learn from
    starts: dict[str, StartWork]  # name in the store -> refitted first weights that a trial may begin with
    start_names: dict[StartKey, str]
    inputs: dict[str, JsonValue]  # of `inputs_of`

    @property
    def students(self) -> dict[str, Student]:
        """Complexity class -> a student of it, pairs of a shelf's halves included."""
        networks = (*(trial.student for trial in self.trials), *pair_students(self.spec))
        return {student.complexity_class: student for student in networks}

    @property
    def has_pairs(self) -> bool:
        """Whether encoders and decoders are trained by themselves."""
        return bool(pair_students(self.spec))

    @property
    def feature_plans(self) -> tuple[FeaturePlan, ...]:
        """The pixels', then the teachers'."""
        return self.pixels, *self.features.values()

    @classmethod
    def of(cls, spec: Spec) -> Plan:
        """Plan a sweep; reads the photographs and the teachers' weights.

        Args:
            spec: with absolute paths.

        Raises:
            SpecError: a path, a network or a count does not fit.
            WeightsError, PhotographError, CropError: weights or photographs cannot be used.
        """
        check_paths(spec)
        check_places(spec.name, results=spec.results, store=spec.store)
        spec = with_inherited(with_halves(with_zoo_files(spec, zoo_folder(spec))))
        trials = reachable(spec)
        check_networks(spec, trials)
        train, held_out = survey_both(
            spec.photographs,
            Store(spec.store),
            train_side=minimum_side(spec.crops),
            validation_side=spec.validation.size,
        )
        crops = plan_crops(train.photographs, spec.crops, len(spec.rate_ladder.lambdas), spec.seed)
        minimum = spec.training.batch_size * len(spec.rate_ladder.lambdas)
        if crops.count < minimum:  # a given count was checked with the specification
            given = f"{len(train.photographs)} photographs give {crops.count}"
            instead = f"at least {minimum}, a batch for each lambda; {given}"
            raise SpecError([refusal("crops.count", spec.crops.count, instead)])
        used = {trial.teacher for trial in trials} | {trial.start_of for trial in trials}
        teachers = [
            TeacherWeights(
                name=teacher.name,
                path=teacher.weights,
                digest=digest(teacher.weights),
                kind=read_metadata(teacher.weights).kind,
                family=read_metadata(teacher.weights).family,
            )
            for teacher in spec.teachers
            if teacher.name in used
        ]
        starts = starts_of(spec, trials, teachers, crops, train.photographs)
        learned = {trial.teacher for trial in trials}
        return cls(
            spec=spec,
            trials=trials,
            train=train.photographs,
            crops=crops,
            validation=validation_crops(held_out.photographs, spec.validation),
            pixels=plan_features(crops),
            features={
                teacher.name: plan_features(crops, teacher, taps(trials, teacher, len(spec.rate_ladder.lambdas)))
                for teacher in teachers
                if teacher.name in learned
            },
            starts={work.name: work for work in starts.values()},
            start_names={key: work.name for key, work in starts.items()},
            inputs=inputs_of(spec, train.photographs, held_out.photographs),
        )


def check_places(name: str, *, results: str, **others: str) -> None:
    """Raises SpecError if something cannot be written to; of S3 this is found when it is tried.

    Args:
        name: of the run folder.
        results, others: absolute places, by their fields in the specification.
    """
    places = {"results": results, **others}
    problems = [refusal(field, place, why) for field, place in places.items() if (why := unusable(place))]
    if not problems and (why := unusable(f"{results}/{name}")):
        problems = [refusal("name", name, why)]
    if problems:
        raise SpecError(problems)


def check_servers(*stores: Store) -> None:
    """Tries stores on S3 before any work: a probe is written and deleted.

    Raises StoreError: one cannot be reached, refuses what is written, or ignores conditions.
    """
    for store in stores:
        if store.folder is None:
            store.check_conditional_writes()


def starts_of(
    spec: Spec,
    trials: Sequence[Trial],
    teachers: Sequence[TeacherWeights],
    crops: CropPlan,
    photographs: PhotographTable,
) -> dict[StartKey, StartWork]:
    """The refitted first weights that trials begin with.

    Args:
        spec: of the sweep.
        trials: its trials.
        teachers: all that a trial starts from.
        crops: that layers are fitted to.
        photographs: of the crops.
    """
    by_name = {teacher.name: teacher for teacher in teachers}
    keys = {key for trial in trials if (key := start_key(trial)) is not None}
    return {
        key: start_work(by_name[key[0]], key[1], spec.rate_ladder, crops, key[2], photographs.by_digest)
        for key in sorted(keys, key=str)
    }


def taps(trials: Sequence[Trial], teacher: TeacherWeights, rate_points: int) -> tuple[Tap, ...]:
    """The taps of a teacher that its trials' losses read; only these are stored.

    Args:
        trials: of any teachers; the others' are ignored.
        teacher: the teacher.
        rate_points: of the sweep's rate ladder.
    """
    losses = [(trial.loss, trial.student.family) for trial in trials if trial.teacher == teacher.name]
    return targets.taps(losses, teacher=teacher.family, rate_points=rate_points)


def shared_data(plan: Plan, store: Store) -> SharedData:
    """The data that all trials read, with the bits of the teachers' channels where a loss needs them.

    Args:
        plan: of the sweep.
        store: the feature store, already filled.

    Raises:
        FeatureError, FileNotFoundError: as `channel_bits`.
    """
    rate_points = tuple(shard[0] % plan.crops.rate_points for shard in plan.crops.shards)
    entropy_taps = {
        (trial.teacher, tap)
        for trial in plan.trials
        if trial.teacher and (tap := entropy_tap(trial.loss, plan.crops.rate_points))
    }
    return SharedData(
        store_url=store.url,
        plan=plan.crops.ordering,
        pixels_plan=plan.pixels.ordering,
        feature_plans={teacher: features.ordering for teacher, features in plan.features.items()},
        channel_bits={
            (teacher, tap): channel_bits(store, plan.features[teacher], tap, rate_points)
            for teacher, tap in sorted(entropy_taps)
        },
        starts=plan.start_names,
        validation=plan.validation,
    )
