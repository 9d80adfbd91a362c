"""Sends a run's curves to a tracker that Accelerate supports, such as TensorBoard."""

from dataclasses import asdict

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from s9.engine.hardware import unconfigured
from s9.errors import UserError
from s9.records import Run


class Tracker:
    """For utils.fit's `after_epoch`: sends each epoch's row of the history.

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
        """Sends the last row of the history."""
        if self.accelerator is None:  # Not earlier: fit() resets the state that Accelerators share.
            with unconfigured():  # Its settings would become those of the run's Accelerator too.
                self.accelerator = Accelerator(log_with=self.name, project_dir=run.folder)
            self.accelerator.init_trackers("S9", asdict(run.settings))
        row = run.history[-1]._asdict()
        epoch = row.pop("epoch")
        self.accelerator.log(row, step=epoch)
        if run.complete:
            self.accelerator.end_training()
