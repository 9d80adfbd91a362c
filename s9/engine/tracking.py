"""Sends a run's curves and one picture to a tracker that Accelerate supports, such as TensorBoard."""

import io
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from PIL import Image

from s9.errors import UserError
from s9.records import Run

PROJECT = "S9"


class Tracker:
    """For utils.fit's `after_epoch`: sends each epoch's row of the history.

    name: of a tracker in Accelerate, such as "tensorboard" or "wandb". One that writes files writes them into
    the run's folder, subfolder S9.

    Raises UserError if the tracker is unknown or not installed.
    """

    def __init__(self, name: str) -> None:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise UserError(f"unknown tracker {name!r}: choose one of {', '.join(LOGGER_TYPE_TO_CLASS)}")
        if name not in [str(kind) for kind in get_available_trackers()]:
            raise UserError(f"the tracker {name} is not installed: pip install {name}")
        self.name = name
        self.accelerator: Accelerator | None = None

    def __call__(self, run: Run) -> None:
        """Sends the last row of the history."""
        if self.accelerator is None:  # Not before: make_accelerator() resets what Accelerators share.
            self.accelerator = Accelerator(log_with=self.name, project_dir=run.folder)
            self.accelerator.init_trackers(PROJECT, asdict(run.settings))
        row = run.history[-1]._asdict()
        self.epoch = row.pop("epoch")
        self.accelerator.log(row, step=self.epoch)

    def finish(self, name: str, picture: Any) -> None:
        """Sends a picture, a figure of s9.plots, where the tracker takes pictures, and closes the tracker."""
        if self.accelerator is None:
            return
        image = np.asarray(Image.open(io.BytesIO(picture.png)).convert("RGB"))
        tracker = self.accelerator.get_tracker(self.name)
        if hasattr(tracker, "log_images"):
            tracker.log_images({name: torch.tensor(image).permute(2, 0, 1)[None]}, step=self.epoch)
        self.accelerator.end_training()
