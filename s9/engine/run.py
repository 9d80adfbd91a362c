"""A run under way: what is trained, how far it has come, and its checkpoints and records on disk."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from s9 import records
from s9.engine import checkpoint
from s9.errors import RunError, UserError, how_to_resume
from s9.records import Epoch, Run


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
    """All that a checkpoint holds: the records so far, the progress of the epoch, and every stateful part.

    parts: by name, objects with state_dict() and load_state_dict(); "network" is among them.
    Every process holds a RunState; the main process alone writes files.
    """

    def __init__(self, run: Run, parts: dict[str, Any], accelerator: Accelerator) -> None:
        self.run, self.parts, self.accelerator = run, parts, accelerator
        self.progress = Progress()

    def end_epoch(self, row: Epoch, lines: tuple[str, str]) -> None:
        """Adds a finished epoch, its row and its two log lines, to the records."""
        log = f"{self.run.log}Epoch {row.epoch}\n{lines[0]}\n{lines[1]}\n\n"
        self.run = self.run._replace(history=[*self.run.history, records.rounded(row)], log=log)
        self.progress = Progress()

    def save(self) -> None:
        """Writes the checkpoint and, after a whole epoch, the records. Raises RunError if it cannot."""
        run = self.run
        state = {
            "settings": asdict(run.settings),
            "facts": run.facts,
            "history": [list(row) for row in run.history],
            "log": run.log,
            "progress": asdict(self.progress),
            "random": gather_object([checkpoint.random_state()]),
            **{name: part.state_dict() for name, part in self.parts.items()},
        }
        if not self.accelerator.is_main_process:
            return
        try:
            checkpoint.save(run.folder, state)
            self._write_records()
        except OSError as error:
            raise RunError(
                f"cannot write to {run.folder} after epoch {len(run.history)} ({error.strerror}): free disk "
                f"space or restore the folder; the last checkpoint is intact, {how_to_resume(run.folder)}"
            ) from error

    def restore(self) -> None:
        """Continues from the newest checkpoint in the run's folder.

        Raises UserError if no checkpoint is usable or if it does not fit the parts.
        """
        with self.accelerator.main_process_first():  # It moves a damaged checkpoint out of the way.
            state = checkpoint.load(self.run.folder, self.run.settings)
        try:
            history = [Epoch(*row) for row in state["history"]]
            facts = records.continued(state["facts"], self.run.facts, len(history) + 1)
            self.run = self.run._replace(facts=facts, history=history, log=state["log"])
            self.progress = Progress(**state["progress"])
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
            if len(state["random"]) == self.accelerator.num_processes:
                checkpoint.set_random_state(state["random"][self.accelerator.process_index])
        except UserError:
            raise
        except Exception as error:  # load_state_dict of a changed network raises various types.
            problem = f"{self.run.folder / records.CHECKPOINT} belongs to another network or machine"
            raise UserError(f"{problem} ({' '.join(str(error).split())[:120]}): start a new run") from error
        if self.accelerator.is_main_process:
            self._write_records()  # A kill between checkpoint and records leaves the older records.

    def _write_records(self) -> None:
        if self.run.history and not self.progress.batches:
            records.write(self.run, self.parts["network"])


def on_main_process(accelerator: Accelerator, get_folder: Callable[[], Path]) -> Path:
    """The path that `get_folder` returns in the main process, or its UserError, in every process."""
    answer: list[str | None] = [None, None]
    if accelerator.is_main_process:
        try:
            answer[0] = str(get_folder())
        except UserError as error:
            answer[1] = str(error)
    folder, problem = broadcast_object_list(answer)
    if problem is not None:
        raise UserError(problem)
    return Path(folder)
