"""What goes wrong in a run, noticed in time and explained in one line."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from torch import Tensor, nn

from s9.errors import RunError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While entered, a first Ctrl-C or polite kill (SIGTERM) waits until the step under way is done.

    `signal` then holds its number, for the loop to look at; a second one ends the program at once.
    Only a program's main thread can do this; in any other, and with wait=False, signals stay as they are.
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
    """Looks at each batch's loss and gradient, and remembers the first that is not finite.

    The looking is done on the device: asking at once would make a GPU wait for the CPU at every batch.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        # Batch number (-1: none so far), loss and norm of the gradient there.
        self.first = torch.tensor([-1.0, 0.0, 0.0], device=device)

    def update(self, batch: int, loss: Tensor, gradients: bool) -> None:
        """gradients: look at them too; not with float16, whose scaled ones overflow at times by design."""
        norm = torch.zeros((), device=loss.device)
        if gradients:
            norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        found = torch.stack([torch.full_like(norm, batch), loss.detach().float(), norm])
        self.first = torch.where((self.first[0] < 0) & ~found.isfinite().all(), found, self.first)

    def raise_if_found(self) -> None:
        """Raises RunError if something was not finite."""
        batch, loss, norm = self.first.tolist()
        if batch >= 0:
            raise RunError(f"batch {batch:.0f}: the loss is {loss:g} and the gradient's norm {norm:g}")


@contextmanager
def explain_failures(epoch: int, folder: object, batch_size: int, learning_rate: float) -> Iterator[None]:
    """Turns what can befall an epoch into a RunError that says where, what to do, and what is kept."""
    kept = f"; what was trained before this epoch is kept in {folder} (--resume)"
    try:
        yield
    except RunError as error:
        advice = (
            f"lower --learning-rate (now {learning_rate:g}) or, in mixed precision, try --precision float32"
        )
        raise RunError(f"epoch {epoch}, {error}: {advice}{kept}") from error
    except (MemoryError, RuntimeError) as error:
        if _out_of_memory(error):
            advice = f"give a smaller --batch-size (now {batch_size})"
            raise RunError(f"epoch {epoch}: out of memory: {advice}{kept}") from error
        if "DataLoader worker" in str(error):
            advice = "free some memory, or give fewer --workers (0 for none)"
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
