"""Detects failures of a run early and explains them in one line."""

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
    """Checks each batch's loss and gradient norm, and remembers the first that is not finite.

    The check runs on the device: reading its result at every batch would make a GPU wait for the CPU.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        # Batch number (-1: none so far), loss and norm of the gradient there.
        self.first = torch.tensor([-1.0, 0.0, 0.0], device=device)

    def update(self, batch: int, loss: Tensor, gradients: bool) -> None:
        """gradients: check them too; not with float16, whose scaled gradients may overflow by design."""
        norm = torch.zeros((), device=loss.device)
        if gradients:
            norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        found = torch.stack([torch.full_like(norm, batch), loss.detach().float(), norm])
        self.first = torch.where((self.first[0] < 0) & ~found.isfinite().all(), found, self.first)

    def raise_if_found(self) -> None:
        """Raises RunError if a loss or a gradient norm was not finite."""
        batch, loss, norm = self.first.tolist()
        if batch >= 0:
            raise RunError(f"batch {batch:.0f}: the loss is {loss:g} and the gradient's norm {norm:g}")


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
