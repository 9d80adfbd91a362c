"""The progress bar of an epoch, as text or as a widget, and the estimate of how long the run takes."""

import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from tqdm.auto import tqdm

LINE = "{l_bar}{bar:10}{r_bar}"
"""The bar as text: ten characters on any terminal, so that logs look the same everywhere."""
IN_NOTEBOOK = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)
"""Whether tqdm draws widgets."""
NOTHING = {"text/plain": ""}
"""What a notebook displays for an empty output."""
VIEW = "application/vnd.jupyter.widget-view+json"

WARM_UP, MEASURED = 10, 20
"""Batches of a run before the measured ones, while memory and workers are set up, and the measured ones."""
TEST_SHARE = 1 / 3
"""Of a training step's time, on as many images: a backward pass costs twice what a forward pass does."""
FULL_SIZE = 32
"""Side of the test images, in pixels."""


class Forecast:
    """Prints one line, after the first batches of a run: what it is computed on and how long it will take.

    The time of a step grows with the pixels of its images; for a GPU that small images leave idle, or that
    waits for them, the forecast is too long.

    chosen: device, precision and workers, in words. sizes: side of the training images in each epoch to come,
    in pixels. batches: of an epoch. first: the one that the current epoch starts with, from 0.
    tested: test images for each training image.
    """

    def __init__(
        self, chosen: str, sizes: Sequence[int], batches: int, first: int, tested: float, device: torch.device
    ) -> None:
        self.chosen, self.sizes, self.batches, self.first = chosen, sizes, batches, first
        self.tested, self.device = tested, device
        self.warm_up = min(WARM_UP, (batches - first) // 2)
        self.measured = min(MEASURED, batches - first - self.warm_up)
        self.count, self.started = 0, time.perf_counter()

    def batch_done(self) -> None:
        """The batch has been trained on; after the last measured one the line is printed."""
        self.count += 1
        if self.count not in (self.warm_up, self.warm_up + self.measured):
            return
        if self.device.type != "cpu":
            torch.accelerator.synchronize()
        now = time.perf_counter()
        if self.count == self.warm_up:
            self.started = now
            return
        seconds = self.seconds((now - self.started) / self.measured)
        about = f"about {in_words(seconds)}" if seconds >= 60 else "less than a minute"
        batches = f"{self.measured} batches" if self.measured > 1 else "a batch"
        tqdm.write(f"on {self.chosen}: {about}, judging by {batches}")

    def seconds(self, step: float) -> float:
        """Seconds that all epochs to come take. step: seconds of one, on images of the first of `sizes`."""
        test = self.tested * TEST_SHARE * FULL_SIZE**2
        epochs = sum(size**2 + test for size in self.sizes) / self.sizes[0] ** 2
        return step * (self.batches * epochs - self.first)


class ProgressBar:
    """The progress bar of a run, a new one each epoch in the same place; `forecast` is told of each batch.

    A notebook shows that place while entered: a widget in a saved notebook would show an error message.
    """

    def __init__(self, shown: bool = True, forecast: Forecast | None = None) -> None:
        self.shown, self.forecast = shown, forecast if shown else None
        self.place: Any = None

    def __enter__(self) -> "ProgressBar":
        if self.shown and IN_NOTEBOOK:
            from IPython.display import display
            from ipywidgets import HBox  # Takes a second to import, which only notebooks need.

            self.place = HBox()
            # Not display(self.place): ipywidgets 7, which Colab has, would ignore the display_id.
            view = {"version_major": 2, "version_minor": 0, "model_id": self.place.model_id}
            self.display = display({VIEW: view, **NOTHING}, raw=True, display_id=True)
        return self

    def __exit__(self, *error: object) -> None:
        if self.place is not None:
            self.place.close()
            self.display.update(NOTHING, raw=True)
            self.place = None

    def start(self, batches: int, first: int = 0) -> None:
        """An epoch of that many batches begins, of which the first `first` are done."""
        look: dict[str, Any] = {"bar_format": LINE}
        if IN_NOTEBOOK:
            look = {"bar_format": "{l_bar}{bar}{r_bar}", "display": self.place is None}
        steps = {"total": batches, "initial": first, "mininterval": 0.5}
        self.bar = tqdm(desc="Train", leave=False, file=sys.stdout, disable=not self.shown, **steps, **look)
        if self.place is not None:
            self.place.children = (self.bar.container,)

    def batch_done(self, text: str | None = None) -> None:
        """The batch has been trained on. text: what the bar shows from now on, if it changes."""
        if text is not None:
            self.bar.set_description(text, refresh=False)
        self.bar.update()
        if self.forecast is not None:
            self.forecast.batch_done()

    def finish(self) -> str:
        """Removes the bar; returns its last state as text, "" if it is not shown."""
        self.bar.close()
        self.bar.bar_format = LINE
        return str(self.bar) if self.shown else ""


def in_words(seconds: float) -> str:
    """A time in seconds, in minutes from one minute on, in hours from two hours on."""
    if seconds >= 2 * 3600:
        return f"{seconds / 3600:.1f} hours"
    count, unit = (seconds, "second") if round(seconds) < 60 else (seconds / 60, "minute")
    return f"{count:.0f} {unit}" + "s" * (round(count) != 1)
