"""The loss terms that read something of a teacher: one row each, and what is made from the rows.

Made from them: the fields of `LossWeights`, `Loss`, `LossSpace` and `TeacherRatePoints` (spec/loss.py,
spec/loss_space.py), what is computed and stored of a teacher (distill/targets.py), the sum that is trained on
(distill/losses.py), and the table of docs/losses.md, which `python -m orchestrator.spec.terms` prints. How to add a
term: docs/extending.md.

A function is named by its path and imported by what trains, because a specification is read without torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import create_model

from models.one_line import OneLineParser
from orchestrator.spec.section import Section

Argument = Literal["gain", "teacher_gain", "channel_weights", "lmbda", "distortion"]


@dataclass(frozen=True, kw_only=True)
class Term:
    """What a term compares, by which function, and where it is from.

    Attributes:
        name: of the weight in a specification.
        reads: what is compared, of the student and of its teacher: a latent, the reconstruction, or the attention at
            each of `Method.stages` (see models/taps.py).
        function: `module:name`. It takes the student's tensor, the teacher's of the same shape, and as keyword
            arguments those of `takes`; it returns a scalar, the mean over crops.
        takes: `gain` and `teacher_gain`, the inverse quantisation steps of y; `channel_weights` [M], each channel's
            share of the teacher's bits, which sum to 1; `lmbda` and `distortion`, those of the rate-distortion loss.
        unit: of the function's value.
        formula: in the letters of docs/losses.md.
        source: the paper that has the term.
        source_has: where the paper differs from the formula.
        tests: the functions in tests/ that hold the term to its formula.
    """

    name: str
    reads: Literal["y", "z", "x_hat", "spatial", "channel"]
    function: str
    takes: tuple[Argument, ...] = ()
    unit: str
    formula: str
    source: str
    source_has: str = ""
    tests: tuple[str, ...]

    @property
    def at_stages(self) -> bool:
        """Whether it is compared at each stage, and summed over them."""
        return self.reads in ("spatial", "channel")

    @property
    def has_channels(self) -> bool:
        """Whether the shape depends on a network's width, so that a student of another width needs a map."""
        return self.reads in ("y", "z", "channel")


ROWS = (
    Term(
        name="latent",
        reads="y",
        function="orchestrator.distill.losses:latent_distortion",
        takes=("gain", "teacher_gain"),
        unit="squared steps",
        formula="MSE(g y_s, g_t y_t)",
        source="PRIM, L1",
        source_has="noisy y_hat against rounded y_hat: a floor of 1/12",
        tests=("test_latent_distortion_counts_in_quantisation_steps",),
    ),
    Term(
        name="latent_kl",
        reads="y",
        function="orchestrator.distill.losses:latent_divergence",
        takes=("gain", "teacher_gain"),
        unit="nats a position",
        formula="KL(softmax(g_t y_t) || softmax(g y_s)) over channels, mean over positions",
        source="PRIM, its other latent term",
        source_has="divided by the channels too",
        tests=("test_latent_divergence_is_of_the_channels_of_each_position",),
    ),
    Term(
        name="hyper_latent",
        reads="z",
        function="orchestrator.distill.losses:latent_distortion",
        unit="squared steps",
        formula="MSE(z_s, z_t)",
        source="PRIM, L2",
        source_has="of z_hat",
        tests=("test_the_sum_weighs_each_term_by_its_own_weight",),
    ),
    Term(
        name="reconstruction",
        reads="x_hat",
        function="orchestrator.distill.losses:image_distortion",
        takes=("lmbda", "distortion"),
        unit="as `distortion`",
        formula="D(x_hat_s, x_hat_t)",
        source="PRIM, L1",
        source_has="without lambda 255^2",
        tests=("test_the_sum_weighs_each_term_by_its_own_weight",),
    ),
    Term(
        name="spatial_attention",
        reads="spatial",
        function="orchestrator.distill.losses:attention_distance",
        unit="0 to 2 a stage",
        formula="sum over stages of ||a_s/|a_s| - a_t/|a_t|||^2, a = mean over channels of F^2",
        source="FEDS as read; attention transfer",
        source_has="not public",
        tests=("test_attention_distance_compares_directions_crop_by_crop",),
    ),
    Term(
        name="channel_attention",
        reads="channel",
        function="orchestrator.distill.losses:attention_distance",
        unit="0 to 2 a stage",
        formula="the same with a = mean over positions of F^2",
        source="FEDS as read",
        source_has="not public",
        tests=("test_attention_distance_compares_directions_crop_by_crop",),
    ),
    Term(
        name="channel_entropy",
        reads="y",
        function="orchestrator.distill.losses:weighted_latent_distortion",
        takes=("channel_weights", "gain", "teacher_gain"),
        unit="squared steps",
        formula="sum_c w_c MSE(g y_s,c, g_t y_t,c), w_c = H_c / sum H, "
        "H_c = E[-log2 p(y_hat_t,c)] over the crop plan, one w a rate point",
        source="FEDS as read",
        source_has="not public",
        tests=(
            "test_weighted_latent_distortion_weighs_each_channel_by_its_own_weight",
            "test_channel_bits_are_the_mean_over_the_crops_of_a_rate_point",
        ),
    ),
)


def by_name(rows: Iterable[Term]) -> Mapping[str, Term]:
    """The rows by their terms' names. Raises ValueError if two have the same one."""
    terms: dict[str, Term] = {}
    for term in rows:
        if term.name in terms:
            raise ValueError(f"two loss terms are named {term.name}")
        terms[term.name] = term
    return terms


TERMS = by_name(ROWS)


def field_per_term(kind: Any, default: object, **first: Any) -> Any:
    """A section with a field for each term, in the order of the rows: a base class of sections with weights.

    Args:
        kind, default: of each of these fields.
        first: other fields, ahead of them, as (kind, default).
    """
    fields: dict[str, Any] = first | dict.fromkeys(TERMS, (kind, default))
    return create_model("FieldPerTerm", __base__=Section, **fields)


def table() -> str:
    """The rows as docs/losses.md has them, in Markdown."""
    head = ("term", "reads", "unit", "formula", "source", "what the source has instead", "test")
    rows = [
        (f"`{name}`", _reads(term), term.unit, term.formula, term.source, term.source_has, _tests(term))
        for name, term in TERMS.items()
    ]
    cells = [head, ("---",) * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


def _reads(term: Term) -> str:
    return f"{term.reads} attention at each stage" if term.at_stages else term.reads


def _tests(term: Term) -> str:
    return ", ".join(f"`{test}`" for test in term.tests)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table of docs/losses.md. There are no arguments but --help."""
    OneLineParser(prog="python -m orchestrator.spec.terms", description=main.__doc__).parse_args(arguments)
    print(table(), end="")


if __name__ == "__main__":
    main()
