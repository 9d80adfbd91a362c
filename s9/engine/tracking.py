"""Sends a run's curves to a tracker that Accelerate supports, such as TensorBoard."""

import io
from dataclasses import asdict

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from PIL import Image

from s9.errors import UserError
from s9.records import Run

PROJECT = "S9"


class Tracker:
    """For utils.fit's `after_epoch`: sends each epoch's row of the history, and after the last one a picture.

    name: of a tracker in Accelerate, such as "tensorboard" or "wandb". One that writes files writes them into
    the run's folder, subfolder S9.

    Raises UserError if the tracker is unknown or not installed.
    """

    def __init__(self, name: str) -> None:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise UserError(f"unknown tracker {name!r}: choose one of {', '.join(LOGGER_TYPE_TO_CLASS)}")
        if name not in map(str, get_available_trackers()):
            raise UserError(f"the tracker {name} is not installed: pip install {name}")
        self.name = name
        self.accelerator: Accelerator | None = None

    def __call__(self, run: Run) -> None:
        """Sends the last row of the history; the curves as a picture if the tracker takes pictures."""
        if (
            self.accelerator is None
        ):  # Not before: make_accelerator() resets the state that Accelerators share.
            self.accelerator = Accelerator(log_with=self.name, project_dir=run.folder)
            self.accelerator.init_trackers(PROJECT, asdict(run.settings))
        row = run.history[-1]._asdict()
        epoch = row.pop("epoch")
        self.accelerator.log(row, step=epoch)
        if run.complete:
            tracker = self.accelerator.get_tracker(self.name)
            if hasattr(tracker, "log_images"):
                tracker.log_images({"curves": _curves(run)}, step=epoch)
            self.accelerator.end_training()


def _curves(run: Run) -> torch.Tensor:
    """The run's curves as one image, uint8 (1, 3, height, width)."""
    from s9.plots.curves import plot_metrics  # Imports Matplotlib, which training does without.

    png = plot_metrics(run.history, run.settings.dataset, run.settings.model).png
    return torch.tensor(np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))).permute(2, 0, 1)[None]
