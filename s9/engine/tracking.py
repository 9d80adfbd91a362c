"""Sends a run's curves to a tracker that Accelerate supports, such as TensorBoard."""

import io
from dataclasses import asdict

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from s9.engine.hardware import unconfigured
from s9.errors import UserError
from s9.records import Run


class Tracker:
    """For utils.fit's `after_epoch`: sends each epoch's row of the history, and at the end the curves.

    name: of a tracker in Accelerate, such as "tensorboard" or "wandb". One that writes files writes them into
    the run's folder, subfolder S9. Raises UserError if it is unknown or not installed.
    """

    def __init__(self, name: str) -> None:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise UserError(f"unknown tracker {name!r}: choose one of {', '.join(LOGGER_TYPE_TO_CLASS)}")
        if name not in map(str, get_available_trackers()):
            raise UserError(f"the tracker {name} is not installed: pip install {name}")
        self.name = name
        self.accelerator: Accelerator | None = None

    def __call__(self, run: Run) -> None:
        """Sends the last row of the history; after the last epoch the curves, to a tracker of pictures."""
        if self.accelerator is None:  # Not earlier: fit() resets the state that Accelerators share.
            with unconfigured():  # Its settings would become those of the run's Accelerator too.
                self.accelerator = Accelerator(log_with=self.name, project_dir=run.folder)
            self.accelerator.init_trackers("S9", asdict(run.settings))
        row = run.history[-1]._asdict()
        epoch = row.pop("epoch")
        self.accelerator.log(row, step=epoch)
        if run.complete:
            tracker = self.accelerator.get_tracker(self.name)
            if hasattr(tracker, "log_images"):
                from s9.plots.curves import plot_metrics  # Imports Matplotlib, which training does without.

                png = plot_metrics(run.history, run.settings.dataset, run.settings.model).png
                curves = pil_to_tensor(Image.open(io.BytesIO(png)).convert("RGB"))
                tracker.log_images({"curves": curves[None]}, step=epoch)
            self.accelerator.end_training()
