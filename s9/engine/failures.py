"""Detects failures of a run early and explains them in one line."""

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, nn

from s9.errors import RunError, how_to_resume, option
from s9.settings import Settings

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Context in which a first Ctrl-C (SIGINT) or SIGTERM waits until the current training step is done.

    `signal` then holds its number, for the loop to check; a second signal ends the program at once.
    In a thread other than the main one, and with wait=False, signals are handled as usual.
    """

    def __init__(self, wait: bool = True) -> None:
        self.wait = wait and threading.current_thread() is threading.main_thread()
        self.signal: int | None = None
        self._former: dict[int, object] = {}

    def __enter__(self) -> "Interrupts":
        if self.wait:
            self._former = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number


class FiniteCheck:
    """Finds the first batch whose loss or gradient is not finite.

    update() computes on the device and does not wait for it; raise_if_found() does.
    """

    def __init__(self, network: nn.Module) -> None:
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.batches: list[int] = []
        self.values: list[Tensor] = []

    def update(self, batch: int, loss: Tensor, gradients: bool) -> None:
        """Notes the loss and the norm of the gradients that a batch gave, before the optimizer changes them.

        gradients: False leaves them out; in float16 they are scaled, and overflow now and then by design.
        """
        norm = torch.zeros((), device=loss.device)
        if gradients:
            norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        self.batches.append(batch)
        self.values.append(torch.stack([loss, norm]))

    def raise_if_found(self) -> None:
        """Raises RunError for the first batch since the last call that was not finite."""
        values = torch.stack(self.values).tolist() if self.values else []
        for batch, (loss, norm) in zip(self.batches, values, strict=True):
            if not math.isfinite(loss + norm):
                raise RunError(f"batch {batch}: the loss is {loss:g} and the gradient's norm {norm:g}")
        self.batches, self.values = [], []


@contextmanager
def explain_failures(epoch: int, folder: Path, settings: Settings) -> Iterator[None]:
    """Turns a failure in an epoch into a RunError that says where, what to do and what is kept."""
    kept = f"; everything before this epoch is kept in {folder}, {how_to_resume(folder)}"
    try:
        yield
    except RunError as error:
        advice = (
            f"lower {option('learning_rate')} (now {settings.learning_rate:g}) or, in mixed precision, "
            f"use {option('precision')} float32"
        )
        raise RunError(f"epoch {epoch}, {error}: {advice}{kept}") from error
    except (MemoryError, RuntimeError) as error:
        if _out_of_memory(error):
            advice = f"use a smaller {option('batch_size')} (now {settings.batch_size})"
            raise RunError(f"epoch {epoch}: out of memory: {advice}{kept}") from error
        if "DataLoader worker" in str(error):
            advice = f"free some memory, or use fewer {option('workers')} (0 for none)"
            raise RunError(f"epoch {epoch}: a worker process died: {advice}{kept}") from error
        if _lost_process(error):
            raise RunError(f"epoch {epoch}: another process of this job ended{kept}") from error
        raise


def _out_of_memory(error: Exception) -> bool:
    # On a CPU PyTorch has no class for it.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _lost_process(error: Exception) -> bool:
    words = ("connection closed by peer", "connection reset by peer", "nccl", "gloo", "timed out waiting")
    return any(word in str(error).lower() for word in words)
