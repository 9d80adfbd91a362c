"""How long a run will take, judged by its first batches."""

import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from tqdm.auto import tqdm

from loaders import Loader

WARM_UP, JUDGED = 10, 20
"""Batches passed over while memory, kernels and workers are got ready, and those timed after them."""

TEST_SHARE = 1 / 3
"""Of a training step's time, on the same images: a test goes forward, and not twice as much back."""

FULL_SIZE = 32
"""Side of the test images."""


class Forecast:
    """Says once, in a line, what a run is computed on and how long it will take.

    What a batch is waited for is counted as it is; the rest of a step's time grows with the pixels of its
    images. So on a GPU that small images leave idle, the forecast is too long rather than too short.

    chosen: what the line says of device, precision and workers.
    sizes: side of the training images in each epoch to come, in pixels, the one under way first.
    first: the batch that the epoch under way goes on with, from 0.
    tested: images that a test has for each one that an epoch has.
    """

    def __init__(
        self, chosen: str, sizes: Sequence[int], first: int, tested: float, device: torch.device
    ) -> None:
        self.chosen, self.sizes, self.first, self.tested, self.device = chosen, sizes, first, tested, device
        self.said = False

    def watch(self, loader: Loader) -> Iterator[tuple[Tensor, Tensor]]:
        """The loader's batches. When the first ones have been trained on, the line is printed."""
        if self.said:
            yield from loader
            return
        left = len(loader) - self.first
        warm_up = min(WARM_UP, left // 2)
        judged = min(JUDGED, left - warm_up)
        started = asked = time.perf_counter()
        waited = 0.0
        for number, batch in enumerate(loader, 1):
            waited += time.perf_counter() - asked
            yield batch
            if number in (warm_up, warm_up + judged) and self.device.type != "cpu":
                torch.accelerator.synchronize()
            asked = time.perf_counter()
            if number == warm_up:
                started, waited = asked, 0.0
            elif number == warm_up + judged:
                busy = (asked - started - waited) / judged
                self._say(self.seconds(len(loader), waited / judged, busy), judged)

    def seconds(self, batches: int, waited: float, busy: float) -> float:
        """What all epochs to come take, of so many batches each, if one is waited for and computed that long.

        waited, busy: seconds a batch, measured at the first of `sizes`.
        """
        total = -self.first * (waited + busy)
        for size in self.sizes:
            training = waited + busy * (size / self.sizes[0]) ** 2
            test = self.tested * TEST_SHARE * busy * (FULL_SIZE / self.sizes[0]) ** 2
            total += batches * (training + test)
        return total

    def _say(self, seconds: float, judged: int) -> None:
        self.said = True
        about = f"about {in_words(seconds)}" if seconds >= 60 else "less than a minute"
        batches = f"{judged} batches" if judged > 1 else "a batch"
        tqdm.write(f"on {self.chosen}: {about}, judging by {batches}")


def in_words(seconds: float) -> str:
    """A time as a reader wants it: minutes, or hours from two on."""
    minutes = seconds / 60
    if round(minutes) == 1:
        return "1 minute"
    return f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"
