"""RESULTS.md's tables, results.json's goals and the drawings, from result files as the studies write them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.whole import results, results_drawn
from benchmarks.whole import results_tables as tables
from benchmarks.whole.gains import RANDOM, REFITTED, SLICE
from benchmarks.whole.results import CUT, HALF, LONG, PRIM, QUARTER, TEACHERS
from benchmarks.whole.teachers import A, B
from benchmarks.whole.teachers import goals as of_teachers


def row(student: str, arm: str, seed: int, pct: float | None, log_ratio: float) -> dict[str, Any]:
    rung = {
        "images_seen": 32000,
        "bd_rate_pct": pct,
        "log_lagrangian_ratio": log_ratio,
        "training_s": 90.0,
        "validation_s": 10.0,
    }
    named = {"trial_id": f"{student}-{arm}", "complexity_class": student, "arm": arm, "seed": seed}
    macs = 8000.0 if student == HALF else 3500.0
    return {**named, "macs_per_pixel": macs, "bd_rate_pct": pct, "seconds": [100.0], "validation": [rung]}


def sweep(seed: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    own = {"seed": seed, "trials": [row["trial_id"] for row in rows if row["seed"] == seed]}
    spent = {"images": 256_000, "wall_s": 5400.0, "bytes": {"features_read": 4 * 10**9, "features_stored": 10**9}}
    return {
        **own,
        **spent,
        "phases_s": {"features": 100.0},
        "gangs": {"training_s": 800.0},
        "turnaround_median_s": 0.54,
    }


ROWS = [
    row(student, arm, seed, None if arm == RANDOM else pct + width + seed, log_ratio)
    for width, student in ((0.0, HALF), (20.0, QUARTER))
    for arm, pct, log_ratio in ((RANDOM, 0.0, 0.9), (SLICE, 30.0, 0.3), (REFITTED, 8.0, 0.2), ("inherit", 4.0, 0.1))
    for seed in (0, 1)
] + [row(HALF, 'feds, {"start": "random"}', 0, 3.0, 0.05)]
POINTS = [{"bpp": bpp, "psnr_db": 24.0 + 10 * bpp} for bpp in (0.2, 0.4, 0.6, 0.8)]
FOUND: dict[str, Any] = {
    TEACHERS: {
        "networks": {A: {"params": 1_690_000, "macs_per_pixel": 24_600.0}},
        "codecs": [{"name": A, "points": POINTS}, {"name": "JPEG", "points": POINTS}],
        "bd_rate": [{"codec": A, "against": "WebP", "pct": -9.1}, {"codec": "JPEG", "against": "WebP", "pct": None}],
        "goals": of_teachers([]),
    },
    PRIM: {"settings": {"crops": {"count": 16_000}}, "students": ROWS, "sweeps": [sweep(0, ROWS), sweep(1, ROWS)]},
}


def test_tables_are_of_the_rows():
    assert tables.teachers(FOUND[TEACHERS]).splitlines()[2:] == [
        f"| {A} | 1,690,000 | 24.6 |  | -9.1 |  |  |",
        "| JPEG |  |  |  |  |  |  |",
    ]
    assert tables.methods(ROWS, 24_600.0).splitlines() == [
        "| start and training | N=32: 33% of the MACs | N=16: 14% of the MACs |",
        "| --- | --- | --- |",
        "| random start, rate and distortion | none | none |",
        "| slice of the teacher, rate and distortion | +30.5 (+30.0 to +31.0) | +50.5 (+50.0 to +51.0) |",
        "| refitted start, rate and distortion | +8.5 (+8.0 to +9.0) | +28.5 (+28.0 to +29.0) |",
        "| `feds`, random start | +3.0 |  |",
        "| `inherit` | +4.5 (+4.0 to +5.0) | +24.5 (+24.0 to +25.0) |",
    ]
    lines = tables.gained([ROWS]).splitlines()[2:]
    named = "| N=32 | 32,000 | `inherit` | refitted start, rate and distortion"
    assert lines[1] == f"{named} | +4.0 (+4.0 to +4.0) | yes | +10.0 (+10.0 to +10.0) | yes |"
    first = tables.costs({PRIM: FOUND[PRIM]}).splitlines()[2].split(" | ")
    assert first[:5] == ["| prim-small, 0", "9", "256,000", "1.50", "4.0"]
    # 800 s of training and 200 s of filling for 16,000 crops; `inherit` reads the teacher at half of 32,000 images, of
    # two sizes, and `feds` at 70 %
    assert first[-2:] == ["1.48", "0.54 |"]
    of_one_trial_a_slot = {**FOUND[PRIM], "sweeps": [{**sweep(0, ROWS), "turnaround_median_s": None}]}
    assert tables.costs({PRIM: of_one_trial_a_slot}).splitlines()[2].endswith("| 1.48 |  |")


def test_arms_have_titles():
    apart = {"apart": True, "freeze": ["g_a"]}
    both = {**apart, "weights": {"rate_distortion": 1.0, "reconstruction": 0.3}}
    arms = {
        "prim-l1-inherit": "`prim-l1-inherit`",
        f"{SLICE}, {json.dumps({'phases': [{'freeze': ['g_a']}]})}": "slice of the teacher, rate and distortion",
        json.dumps({"phases": [apart]}): "`rate_distortion` of the teacher's latents",
        json.dumps({"start": "teacher-refit", "phases": [{**both, "share": 0.1}, {"share": 0.9}]}): (
            "refitted start, modules apart for 10%, then rate and distortion"
        ),
        json.dumps({"phases": [{**both, "share": 0.25}, {"share": 0.75}], "start": "random"}): (
            "random start, modules apart for 25%, then rate and distortion"
        ),
        json.dumps({"phases": [both]}): "`rate_distortion + reconstruction` of the teacher's latents",
    }
    assert [tables.titled(arm) for arm in arms] == [*arms.values()]


def test_the_best_method_is_of_those_with_all_seeds_by_validation():
    assert tables.best(ROWS, HALF) == "inherit"  # `feds` is better, and has one seed
    better = [row(HALF, "prim-l1", seed, 50.0, 0.01) for seed in (0, 1)]
    assert tables.best([*ROWS, *better], HALF) == "prim-l1"  # the worse BD-rate on the test set is not looked at


def test_goals_are_null_where_nothing_was_measured():
    goals = results.goals(FOUND)
    assert goals["prim_half_pct"] == {"value": 4.5, "goal": 6.0, "at": "most"}
    assert goals["prim_quarter_pct"]["value"] == 24.5
    assert goals["half_better_than_slice_points"]["value"] == 26.0
    assert goals["feds_cut_pct"] == {"value": None, "goal": 1.2, "at": "most"}
    longer = [row(HALF, "inherit", 0, 2.0, 0.01)]
    goals = results.goals({**FOUND, LONG: {"students": longer}})
    assert (goals["prim_half_pct"]["value"], goals["half_better_than_slice_points"]["value"]) == (2.0, 26.0)
    assert goals["prim_quarter_pct"]["value"] == 24.5  # of a size that the longer study lacks, the shorter one's
    of_nothing = results.goals({})
    assert {goal["value"] for goal in of_nothing.values()} == {None} and goals.keys() <= of_nothing.keys()
    longer = [{**longer[0], "validation": [{"images_seen": 160_000}]}]
    longest = results.trained_on({**FOUND, LONG: {"students": longer}})
    assert (longest["prim_half_pct"], longest["prim_quarter_pct"]) == (160_000, 32_000)
    assert (longest["half_better_than_slice_points"], "feds_cut_pct" in longest) == (32_000, False)
    table = tables.goals(results.goals(FOUND), results.trained_on(FOUND)).splitlines()
    assert "| half of (a)'s width against (a), BD-rate in % | 32,000 | +4.5 | at most +6.0 | yes |" in table
    assert "| FEDS's cut of (b) against (b), BD-rate in % |  | none | at most +1.2 |  |" in table
    assert len(table) == 2 + len(of_nothing)
    students = [row(CUT, "feds-inherit", 0, 1.0, 0.1)]
    networks = {B: {"params": 1, "macs_per_pixel": 50_000.0}}
    found = {TEACHERS: {**FOUND[TEACHERS], "networks": networks}, "feds-small": {**FOUND[PRIM], "students": students}}
    assert results.goals(found)["feds_cut_pct"]["value"] == 1.0
    assert "N=40" in results.made({**found, "feds-small": {**found["feds-small"], "sweeps": []}})["feds"]


def test_a_page_keeps_what_it_has_no_table_for():
    page = "a\n<!-- table: prim -->\n{}<!-- end -->\n<!-- table: feds -->\nkept\n<!-- end -->\nb\n"
    for before in ("", "old\n", "| old |\n| lines |\n"):
        assert results.filled(page.format(before), {"prim": "| new |\n"}) == page.format("| new |\n")


LONGER = [
    {**trained, "validation": [{**trained["validation"][-1], "images_seen": 64_000}]}
    for trained in ROWS
    if trained["complexity_class"] == HALF
]


def test_the_drawings_are_the_same_every_time(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(results_drawn, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    drawn = []
    for _ in range(2):
        results_drawn.front(ROWS, LONGER, 24_600.0)
        results_drawn.curves(FOUND[TEACHERS]["codecs"])
        drawn.append({file.name: file.read_bytes() for file in tmp_path.glob("docs/*.svg")})
    assert drawn[0] == drawn[1] and set(drawn[0]) == {"results-front.svg", "results-curves.svg"}


def test_files_that_are_missing_are_left_out(tmp_path):
    (tmp_path / f"{PRIM}.json").write_text(json.dumps({"students": []}))
    assert results.read(tmp_path) == {PRIM: {"students": []}}
