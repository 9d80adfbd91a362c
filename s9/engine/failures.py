"""Detects failures of a run early and explains them in one line."""

import errno
import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from s9.errors import RunError, how_to_resume, option
from s9.settings import Settings


@contextmanager
def delayed_signals(delay: bool = True) -> Iterator[list[int]]:
    """While entered, a first Ctrl-C (SIGINT) or SIGTERM only adds its number to the list that it yields.

    A second signal ends the program at once. In a thread other than the main one, and with delay=False,
    signals are handled as usual.
    """
    received: list[int] = []

    def note(number: int, frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    delay = delay and threading.current_thread() is threading.main_thread()
    former = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM) if delay}
    try:
        yield received
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


class FiniteCheck:
    """Finds the first batch whose loss or gradient is not finite; raise_if_found() waits for the device."""

    def __init__(self, network: nn.Module) -> None:
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.seen: list[tuple[int, Tensor]] = []

    def update(self, batch: int, loss: Tensor, gradients: bool) -> None:
        """Notes the loss and the norm of the gradients: not in float16, where they overflow by design."""
        norm = torch.zeros((), device=loss.device)
        if gradients:
            norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        self.seen.append((batch, torch.stack([loss, norm])))

    def raise_if_found(self) -> None:
        """Raises RunError for the first batch since the last call that was not finite."""
        batches, values = zip(*self.seen, strict=True)
        for batch, (loss, norm) in zip(batches, torch.stack(values).tolist(), strict=True):
            if not math.isfinite(loss + norm):
                raise RunError(f"batch {batch}: the loss is {loss:g} and the gradient's norm {norm:g}")
        self.seen = []


NO_MORE_PROCESSES = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)
LOST_PROCESS = ("connection closed by peer", "connection reset by peer", "nccl", "gloo", "timed out waiting")


@contextmanager
def explain_failures(epoch: int, folder: Path, settings: Settings) -> Iterator[None]:
    """Turns a failure in an epoch into a RunError that says where, what to do and what is kept."""
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        if (explanation := _explanation(error, settings)) is None:
            raise
        kept = f"everything before this epoch is kept in {folder}, {how_to_resume(folder)}"
        raise RunError(f"epoch {epoch}{explanation}; {kept}") from error


def _explanation(error: Exception, settings: Settings) -> str | None:
    """What failed and what to do; None for an error of the code itself."""
    text = str(error)
    if isinstance(error, RunError):
        rate = f"lower {option('learning_rate')} (now {settings.learning_rate:g})"
        return f", {text}: {rate} or, in mixed precision, use {option('precision')} float32"
    # On a CPU PyTorch has no class for a lack of memory.
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text:
        return f": out of memory: use a smaller {option('batch_size')} (now {settings.batch_size})"
    if isinstance(error, OSError) and error.errno in NO_MORE_PROCESSES:
        return f": worker processes cannot be started ({error.strerror}): use fewer {option('workers')}"
    if "DataLoader worker (pid" in text:  # Not "in DataLoader worker process 0", which names any error there.
        return f": a worker process died: free some memory, or use fewer {option('workers')} (0 for none)"
    if any(words in text.lower() for words in LOST_PROCESS):
        return ": another process of this job ended"
    return None
