"""The order of the images, and the random numbers of each batch."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Batch(NamedTuple):
    """The indices of a batch's images, and the seed of its augmentations."""

    seed: int
    indices: list[int]


class Batches:
    """A sampler of whole batches whose every random choice follows from (seed, epoch, batch number).

    So any number of workers, and a resumed run, see the same images as a single process, and no two batches
    share random numbers. Albumentations 2 by itself copies its generators into every worker: all workers then
    augment alike, and alike again in the next epoch.
    """

    def __init__(self, count: int, batch_size: int, seed: int, shuffle: bool) -> None:
        self.count, self.batch_size, self.seed, self.shuffle = count, batch_size, seed, shuffle
        self.epoch = self.first = 0

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def size(self, number: int) -> int:
        """Images in a batch, by its number from 0; the last one may be smaller."""
        return min(self.batch_size, self.count - number * self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        order = np.arange(self.count)
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.count)
        for number in range(self.first, len(self)):
            sequence = np.random.SeedSequence([self.seed, self.epoch, number])
            indices = order[number * self.batch_size :][: self.batch_size]
            yield Batch(int(sequence.generate_state(1, np.uint64)[0]), indices.tolist())
