"""The progress bar of the epoch under way, text or a widget, and the estimate of how long a run will take."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from s9.data.device_loader import Loader

LINE = "{l_bar}{bar:10}{r_bar}"
"""The bar as text: ten characters, however wide the terminal, so that the log looks the same everywhere."""

IN_NOTEBOOK = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)
"""Whether tqdm has chosen to draw widgets."""

NOTHING = {"text/plain": ""}
"""What is shown where a notebook is to show nothing."""


VIEW = "application/vnd.jupyter.widget-view+json"


class Bars:
    """The bars of a run, one epoch's after another's, all in one place.

    While entered, a notebook shows that place; nothing of it is saved with the notebook afterwards: there a
    widget is dead, and no more than an error message where it was.

    shown: False for bars that are not drawn. watch: sees the batches of an epoch pass by, and hands them on.
    """

    def __init__(self, shown: bool = True, watch: Callable[[Loader], Iterable] = iter) -> None:
        self.shown, self.watch = shown, watch
        self.place = self.display = None

    def __enter__(self) -> "Bars":
        if self.shown and IN_NOTEBOOK:
            from IPython.display import display
            from ipywidgets import HBox  # Here: a second that only a notebook has to wait.

            self.place = HBox()
            # Not display(self.place): ipywidgets 7, which Colab has, would forget the display_id.
            view = {"version_major": 2, "version_minor": 0, "model_id": self.place.model_id}
            self.display = display({VIEW: view, **NOTHING}, raw=True, display_id=True)
        return self

    def __exit__(self, *error: object) -> None:
        if self.place is not None:
            self.place.close()
            self.display.update(NOTHING, raw=True)
            self.place = None

    def open(self, loader: Loader, first: int = 0) -> tqdm:
        """The bar around an epoch's batches, of which the first `first` are done."""
        widget: dict[str, Any] = {}
        if IN_NOTEBOOK:
            widget = {"display": self.place is None, "bar_format": "{l_bar}{bar}{r_bar}"}
        options = {"bar_format": LINE, **widget}
        bar = tqdm(
            self.watch(loader) if self.shown else loader,
            "Train",
            total=len(loader),
            initial=first,
            leave=False,
            file=sys.stdout,
            mininterval=0.5,
            disable=not self.shown,
            **options,
        )
        if self.place is not None:
            self.place.children = (bar.container,)
        return bar

    def close(self, bar: tqdm) -> str:
        """Takes the bar away and returns it as it last was, as text; "" if it was not drawn."""
        bar.close()
        bar.bar_format = LINE
        return str(bar) if self.shown else ""


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
