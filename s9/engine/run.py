"""A run under way: what it starts from, how far it has come, and its checkpoints and records on disk."""

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast_object_list, gather_object
from torch import nn

from s9 import records
from s9.data.device_loader import Loader
from s9.data.sources import description
from s9.engine import checkpoint
from s9.engine.hardware import SharedBatchNorm2d, precision_of
from s9.engine.optimizer import make_optimizer
from s9.engine.step import GraphedStep
from s9.errors import RunError, UserError, how_to_resume, one_line
from s9.records import Epoch, Run


def start_from(folder: Path, network: nn.Module, classes: tuple[str, ...]) -> dict:
    """Loads the weights of the run in `folder`; returns what the record of a run that starts so says.

    The classifier stays as it is if that run has other classes. Raises UserError if it is of another network.
    """
    run = records.read(folder)
    same = description(run.settings.dataset, run.facts["data"])[0] == classes
    network.load_state_dict(records.read_weights(folder, network, classifier=same), strict=False)
    digest = hashlib.sha256((folder / records.WEIGHTS).read_bytes()).hexdigest()
    return {"folder": str(folder), "sha256": digest, "new_classifier": not same}


def on_main_process(accelerator: Accelerator, get_folder: Callable[[], Path]) -> Path:
    """The path that `get_folder` returns in the main process, or its UserError, in every process."""
    found: Any = None
    if accelerator.is_main_process:
        try:
            found = get_folder()
        except UserError as error:
            found = error
    (found,) = broadcast_object_list([found])
    if isinstance(found, UserError):
        raise found
    return found


@dataclass
class Progress:
    """How far an epoch has come, and the sums that its log line needs."""

    batches: int = 0
    loss: float = 0.0
    """Sum over the images so far."""
    correct: int = 0
    images: int = 0
    seconds: float = 0.0
    learning_rate: float = 0.0
    """At the first batch of the epoch."""


class RunState:
    """A run under way: its records so far, the progress of the epoch, its network, and what trains it.

    `prepared` is `network` in the precision of training; `step` captures it as a CUDA graph if `graph`, where
    one process trains on a CUDA device. A checkpoint holds the records, the progress and `parts`. Every
    process has a RunState; the main process alone writes files.
    """

    def __init__(
        self, run: Run, network: nn.Module, loaders: Sequence[Loader], accelerator: Accelerator, graph: bool
    ) -> None:
        self.run, self.network, self.accelerator, self.progress = run, network, accelerator, Progress()
        self.train_loader, self.test_loader = loaders
        network.to(accelerator.device, memory_format=torch.channels_last)
        for layer in network.modules():
            if type(layer) is nn.BatchNorm2d and accelerator.num_processes > 1:
                layer.__class__ = SharedBatchNorm2d
        steps = run.settings.epochs * len(self.train_loader)
        optimizer, self.scheduler = make_optimizer(network, run.settings, steps)
        # Accelerate changes the forward of the module it is given to mixed precision; wrapped in another
        # module, `network` itself stays as it is and tests in float32.
        self.prepared, self.optimizer = accelerator.prepare(nn.Sequential(network), optimizer)
        self.parts = {"network": network, "optimizer": self.optimizer, "scheduler": self.scheduler}
        if accelerator.scaler:
            self.parts["scaler"] = accelerator.scaler
            # It skips steps, also the first one, of which the scheduler would warn.
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        one_gpu = accelerator.device.type == "cuda" and accelerator.distributed_type == DistributedType.NO
        batch_size, precision = run.settings.batch_size, precision_of(accelerator)
        self.step = GraphedStep(network, batch_size, precision) if graph and one_gpu else None

    def end_epoch(self, row: Epoch, lines: tuple[str, str]) -> None:
        """Adds a finished epoch, its row and its two log lines, to the records."""
        log = f"{self.run.log}Epoch {row.epoch}\n{lines[0]}\n{lines[1]}\n\n"
        rounded = Epoch(*map(round, row, records.PLACES))
        self.run = self.run._replace(history=[*self.run.history, rounded], log=log)
        self.progress = Progress()

    def save(self) -> None:
        """Writes the checkpoint and, after a whole epoch, the records. Raises RunError if it cannot."""
        run = self.run
        run.facts["cuda_graph"] = self.step is not None and self.step.replay is not None
        state = {
            "settings": asdict(run.settings),
            "facts": run.facts,
            "history": [list(row) for row in run.history],
            "log": run.log,
            "progress": asdict(self.progress),
            "random": gather_object([checkpoint.random_state()]),
            **{name: part.state_dict() for name, part in self.parts.items()},
        }
        if self.accelerator.is_main_process:
            self._write(state)

    def restore(self) -> None:
        """Continues from the newest checkpoint in the run's folder.

        Raises UserError if none fits, RunError if the folder cannot be written.
        """
        with self.accelerator.main_process_first():  # It moves a damaged checkpoint out of the way.
            state = checkpoint.load(self.run.folder, self.run.settings)
        try:
            history = [Epoch(*row) for row in state["history"]]
            facts = records.continued(state["facts"], self.run.facts, len(history) + 1)
            self.run = self.run._replace(facts=facts, history=history, log=state["log"])
            self.progress = Progress(**state["progress"])
            if not self.accelerator.is_main_process:  # The sums are of all processes: one of them adds them.
                self.progress.loss = self.progress.correct = self.progress.images = 0
            for name, part in self.parts.items():
                if name != "scaler" or name in state:  # A run that began in another precision has none.
                    part.load_state_dict(state[name])
            if len(state["random"]) == self.accelerator.num_processes:
                checkpoint.set_random_state(state["random"][self.accelerator.process_index])
        except UserError:
            raise
        except Exception as error:  # load_state_dict of a changed network raises various types.
            problem = f"{self.run.folder / records.CHECKPOINT} belongs to another network or machine"
            raise UserError(f"{problem} ({one_line(error)}): start a new run") from error
        if self.accelerator.is_main_process:
            self._write()  # A kill between checkpoint and records leaves the older records.

    def _write(self, state: dict | None = None) -> None:
        folder, history = self.run.folder, self.run.history
        try:
            if state is not None:
                checkpoint.save(folder, state)
            if history and not self.progress.batches:
                records.write(self.run, self.network)
        except OSError as error:
            problem = f"cannot write to {folder} after epoch {len(history)} ({error.strerror})"
            kept = any(folder.glob(records.CHECKPOINTS))
            intact = f"; the last checkpoint is intact, {how_to_resume(folder)}" if kept else ""
            raise RunError(f"{problem}: free disk space or restore the folder{intact}") from error
