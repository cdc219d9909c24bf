"""What registering a student gives (pure)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Registered:
    """A version of the registered model."""

    trial_id: str
    model: str
    version: str
    alias: str
    new: bool  # False: it existed already, with this trial's id and these weights

    @property
    def uri(self) -> str:
        """What MLflow loads the version by; the same in every registry that has the sweep."""
        return f"models:/{self.model}@{self.alias}"
