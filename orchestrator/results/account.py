"""account.json, where a sweep's time went, and forecast.json, where it was expected to go (pure)."""

from __future__ import annotations

from typing import Literal

from orchestrator.results.format import Number, ResultFile, StrictModel

ACCOUNT, FORECAST = "account.json", "forecast.json"


class GangSeconds(StrictModel):
    """What the gangs did in the phase `trials`: seconds, summed over the gangs."""

    training_s: float  # without the wait for data
    data_wait_s: float
    validation_s: float
    startup_s: float  # the gangs' start, and each trial's model and engine
    checkpoints_s: float
    idle_s: float  # the rest: waiting for Tune, a decision or the other gangs


class ByteCounts(StrictModel):
    """Bytes."""

    features_stored: Number  # published into the feature store
    weights: Number  # of all trials' students
    checkpoints: Number
    features_read: Number


class Account(ResultFile):
    """account.json: of the sweep's last start."""

    format: Literal[1] = 1
    finished: bool  # nothing is left to do
    continued: bool  # an earlier start did part of the work, so a forecast of all of it does not compare
    wall_s: float
    phases_s: dict[str, float]  # of the driver
    gangs: GangSeconds
    images: int  # trained on
    bytes: ByteCounts
    turnaround_median_s: float | None  # from the last step of a trial to the first of the next one
    turnaround_max_s: float | None


class Forecast(StrictModel):
    """What a sweep will take, in one case of early stopping."""

    images: float
    trial_hours: float
    teacher_hours: float  # of one CPU, or of one GPU where Ray has any
    requests: float  # to the store and the run folder
    wall_s: float
    phases_s: dict[str, float]
    gangs: GangSeconds
    bytes: ByteCounts


class Forecasts(ResultFile):
    """forecast.json: made before the sweep began."""

    format: Literal[1] = 1
    least: Forecast
    expected: Forecast
    most: Forecast
