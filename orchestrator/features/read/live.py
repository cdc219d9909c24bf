"""Fresh crops of photographs, without a teacher: what a teacher itself is trained on."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch

from orchestrator.features.format.recent import Recent
from orchestrator.features.read.batch import Batch
from orchestrator.features.read.prefetch import Prefetcher
from orchestrator.photographs.columns import PhotographTable
from orchestrator.photographs.crops import crop_at, cut, fit_for
from orchestrator.photographs.photos import Photograph, load_rgb
from orchestrator.photographs.picture import Pixels
from orchestrator.spec.sections import Crops

KEPT_BYTES = 8 * 2**30  # of pixels, 3 bytes each


class LiveReader:
    """This rank's batches of an endless crop plan; the next ones are cut while a step computes.

    Crop i is a function of (photographs, seed, i), so a resumed run gets the crops that it would have had, at any
    number of ranks.

    Args:
        photographs: from which crops are cut; once decoded, the last `KEPT_BYTES` of them are kept in memory.
        crops: their size, flip and downscale; `count` is not used, since the plan is endless.
        rate_points: how many there are; each step draws one, all with equal chance.
    """

    def __init__(
        self,
        photographs: Sequence[Photograph],
        crops: Crops,
        *,
        rate_points: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._photographs, self._crops, self._seed = fit_for(photographs, crops), crops, seed
        self._by_digest = PhotographTable.of(photographs).by_digest
        self._rate_points, self._batch_size, self._rank, self._world = rate_points, batch_size, rank, world
        self._decoded = Recent(KEPT_BYTES)
        self._prefetcher = Prefetcher(self._read)

    def batch(self, step: int) -> Batch:
        """This rank's share of a step; see `Batch`. Raises PhotographError."""
        return self._prefetcher.batch(step)

    def close(self) -> None:
        """Ends the thread."""
        self._prefetcher.close()

    def _read(self, step: int) -> Batch:
        first = step * self._batch_size
        cuts, crops = [], range(first + self._rank, first + self._batch_size, self._world)
        for index in crops:
            crop = crop_at(self._photographs, self._crops, self._rate_points, self._seed, index)
            rgb = self._decoded.get(crop.photograph, functools.partial(self._load, crop.photograph))
            cuts.append(cut(rgb, crop))
        x = torch.from_numpy(np.stack(cuts)).permute(0, 3, 1, 2).float().div_(255)
        rate_point = int(np.random.default_rng([self._seed, 1, step]).integers(self._rate_points))
        return Batch(x=x, rate_point=rate_point, crops=tuple(crops))

    def _load(self, digest: str) -> Pixels:
        return load_rgb(self._by_digest[digest])
