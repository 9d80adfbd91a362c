"""The training and test loops, one epoch each, and `fit`, which runs them to the end."""

import math
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import gather_object, reduce
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from dataset import default_workers, loaders, train_transform
from model import build
from s9 import records
from s9.data.device_loader import Loader, normalise
from s9.data.sources import Data
from s9.engine import checkpoint
from s9.engine.failures import FiniteCheck, Interrupts, explain_failures
from s9.engine.hardware import make_accelerator, precision_of, shared_batch_norm
from s9.engine.optimizer import make_optimizer
from s9.engine.progress import Bars, Forecast
from s9.errors import Interrupted, RunError, UserError
from s9.records import Epoch, Run
from s9.settings import Settings, image_size

FIT_TO = 1_000
"""Training images that a network's init_whitening() is shown."""

REFRESH = 10
"""Batches between two looks at the loss: each makes a GPU wait for the CPU."""


def new_network(name: str) -> nn.Module:
    """A new network by its name in model.NETWORKS, as model.build gives it; UserError if there is none."""
    try:
        return build(name)
    except ValueError as error:
        raise UserError(str(error)) from error


class Scores(NamedTuple):
    """Of one pass over a loader."""

    loss: float
    """Mean cross-entropy, nats an image."""
    accuracy: float
    """Per cent."""
    line: str
    """As it was printed."""


@dataclass
class Progress:
    """How far an epoch has come, and what its log line counts: where train() begins, and where it stopped."""

    batches: int = 0
    loss: float = 0.0
    """Sum over the images so far."""
    correct: int = 0
    images: int = 0
    seconds: float = 0.0
    learning_rate: float = 0.0
    """That the epoch began with."""


def train(
    network: nn.Module,
    loader: Loader,
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler,
    accelerator: Accelerator,
    label_smoothing: float = 0.0,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
    bars: Bars | None = None,
) -> Scores:
    """One epoch of training; prints `Train: Loss=1.7162 Batch_id=390 Accuracy=33.76: 100%|...`.

    network, optimizer: as `accelerator.prepare` returned them.
    label_smoothing: in 0..1, for the loss that is minimised; the losses shown are without it, so that they
    compare with those on the test set.
    progress: of the epoch so far, where one that was broken off goes on; it is kept up to date.
    stop: asked after every batch; the epoch ends early where it says so.
    bars: where its progress is shown.

    Raises RunError if a loss or a gradient is not finite.
    """
    network.train()
    progress = progress or Progress()
    total_loss = torch.tensor(progress.loss, device=accelerator.device)
    correct = torch.tensor(float(progress.correct), device=accelerator.device)
    check = FiniteCheck(network, accelerator.device)
    bars = bars or Bars(accelerator.is_main_process)
    bar = bars.open(loader, progress.batches)
    for batch_id, (images, labels) in enumerate(bar, progress.batches):
        logits = network(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        if accelerator.num_processes > 1:  # Accelerate takes the mean over processes; their parts may differ.
            loss = loss * (len(labels) * accelerator.num_processes / loader.batch_size(batch_id))
        accelerator.backward(loss)
        check.update(batch_id, loss, gradients=accelerator.scaler is None)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()

        logits = logits.detach()
        loss = F.cross_entropy(logits, labels)
        total_loss = total_loss + loss * len(labels)
        correct = correct + (logits.argmax(1) == labels).sum()
        progress.batches, progress.images = batch_id + 1, progress.images + len(labels)
        last = progress.batches == len(loader)
        stopped = not last and stop()
        if batch_id % REFRESH == 0 or last or stopped:
            check.raise_if_found()
            sums = torch.stack([total_loss, correct, torch.full_like(correct, progress.images)])
            loss_sum, right, seen = accelerator.reduce(sums).tolist()
            # Of all processes; an epoch is only ever broken off, and gone on with, where there is one.
            progress.loss, progress.correct = loss_sum, int(right)
            accuracy = 100 * right / seen
            bar.set_description(
                f"Train: Loss={loss.item():.4f} Batch_id={batch_id} Accuracy={accuracy:.2f}", False
            )
        if stopped:
            break
    line = bars.close(bar)
    accelerator.print(line, flush=True)
    return Scores(loss_sum / seen, accuracy, line)


def test(network: nn.Module, loader: Loader, name: str = "Test") -> Scores:
    """One pass over the test set; prints `Test set: Average loss: 1.5116, Accuracy: 4462/10000 (44.62%)`.

    In float32 if `network` is a bare one, in the precision of training if `accelerator.prepare` returned it.
    name: what the set is called in that line.
    """
    logits, labels = predict(network, loader)
    count = len(labels)
    loss = F.cross_entropy(logits, labels).item()
    correct = (logits.argmax(1) == labels).sum().item()
    if loader.processes > 1:
        sums = torch.tensor([loss * count, correct, count], device=loader.device)
        total_loss, correct, count = reduce(sums, "sum").tolist()
        loss = total_loss / count
    accuracy = 100 * correct / count
    line = f"{name} set: Average loss: {loss:.4f}, Accuracy: {correct:.0f}/{count:.0f} ({accuracy:.2f}%)"
    if loader.process == 0:
        print(line, flush=True)
    return Scores(loss, accuracy, line)


test.__test__ = False  # Its name is the assignment's; pytest must not take it for a test.


@torch.no_grad()
def predict(network: nn.Module, loader: Loader) -> tuple[Tensor, Tensor]:
    """Float32 logits (n, classes) and int64 labels (n,) of a loader's images in its order, on the CPU."""
    network.eval()
    pairs = []
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for images, labels in loader:
            pairs.append((network(images).cpu(), labels.cpu()))
    logits, labels = zip(*pairs, strict=True)
    return torch.cat(logits), torch.cat(labels)


def probabilities(network: nn.Module, data: Data) -> np.ndarray:
    """What the network gives each class for each test image: float32 (n, classes), rows adding up to 1."""
    _, test_loader = loaders(data, device=next(network.parameters()).device)
    logits, _ = predict(network, test_loader)
    return logits.softmax(1).numpy()


def fit(
    network: nn.Module,
    data: Data,
    settings: Settings,
    folder: Path,
    resume: bool = False,
    device: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
    after_epoch: Callable[[list[Epoch]], None] = lambda history: None,
) -> list[Epoch]:
    """Trains `network` for settings.epochs epochs, testing after each, and keeps the records in `folder`.

    network: its first weights are its own; it is trained in place and left on the device.
    folder: written after every epoch (see records.py); must hold no run, or with `resume` one of the same
    settings, which then goes on from its last checkpoint and ends as if it had never stopped.
    device, precision: see make_accelerator. workers: see dataset.loaders.
    after_epoch: called with the history so far when an epoch is kept, in the process that writes it.

    Tests are in the precision of training, the last one in float32: it is the result.
    Several processes (accelerate launch) share every batch, and `folder`, which the first of them writes.

    Returns the history. Raises UserError for anything that does not fit, before anything is written;
    RunError if the training fails; Interrupted, once all is kept, if it was asked to stop (Ctrl-C).
    """
    if settings.dataset != data.name:
        raise UserError(f"the settings are for {settings.dataset}, the data is {data.name}: use the same")
    if settings.validation:
        data = data.validation()
    accelerator = make_accelerator(device, precision)
    device, processes = accelerator.device, accelerator.num_processes
    workers = default_workers(device) if workers is None else workers
    transform = train_transform(data.mean, data.std, settings.augmentation, settings.shift)
    part = {"process": accelerator.process_index, "processes": processes}
    train_loader, test_loader = loaders(
        data, settings.batch_size, settings.seed, workers, device, transform, **part
    )
    _check_size(network, settings)
    records.create_run(folder, settings, resume)
    if (folder / records.SETTINGS).exists() and not checkpoint.existing(folder):
        raise UserError(f"{folder} holds a run, but no checkpoint to go on from: name another folder")

    torch.manual_seed(settings.seed + accelerator.process_index)
    # Numbers below 1e-38 are worth nothing here, and a CPU computes with them many times slower.
    torch.set_flush_denormal(True)
    if hasattr(network, "init_whitening"):  # A network whose first layer is made for the data.
        images = torch.from_numpy(data.train_images[:FIT_TO])
        network.init_whitening(normalise(images, torch.tensor(data.mean), torch.tensor(data.std)))
    network.to(device, memory_format=torch.channels_last)
    optimizer, scheduler = make_optimizer(network, settings, settings.epochs * len(train_loader))
    # Accelerate rewires the module it is handed to compute in mixed precision; in a shell of its own,
    # `network` itself stays as it is, and tests in float32.
    prepared, optimizer = accelerator.prepare(nn.Sequential(network), optimizer)

    facts = records.collect_facts(data.facts(), device, precision_of(accelerator), workers)
    run, progress = Run(folder, settings, facts, [], ""), Progress()
    parts = {"network": network, "optimizer": optimizer, "scheduler": scheduler}
    if accelerator.scaler is not None:
        parts["scaler"] = accelerator.scaler
    with accelerator.main_process_first():  # It puts a damaged checkpoint aside for all.
        state = checkpoint.load(folder, asdict(settings)) if resume else None
    if state is not None:
        run, progress = _restore(run, parts, state, accelerator)

    epochs = range(len(run.history) + 1, settings.epochs + 1)
    forecast = Forecast(
        records.hardware_in_words(facts),
        [image_size(settings, epoch) for epoch in epochs],
        progress.batches,
        len(data.test_images) / len(data.train_images),
        device,
    )
    # Several processes could not agree on the batch to stop at: there, signals act at once.
    with (
        shared_batch_norm(network, processes),
        Interrupts(wait=processes == 1) as interrupts,
        Bars(accelerator.is_main_process, forecast.watch) as bars,
    ):

        def stop() -> bool:
            return interrupts.signal is not None

        for epoch in epochs:
            with explain_failures(epoch, folder, settings.batch_size, settings.learning_rate):
                started = time.perf_counter() - progress.seconds
                accelerator.print(f"Epoch {epoch}", flush=True)
                train_loader.set_epoch(epoch, image_size(settings, epoch), progress.batches)
                if not progress.batches:
                    progress.learning_rate = optimizer.param_groups[0]["lr"]
                trained = train(
                    prepared,
                    train_loader,
                    optimizer,
                    scheduler,
                    accelerator,
                    settings.label_smoothing,
                    progress,
                    stop,
                    bars,
                )
                progress.seconds = time.perf_counter() - started
                if progress.batches == len(train_loader):
                    # The last test is the result: what the saved weights give in float32, on any machine.
                    tested_network = network if epoch == settings.epochs else prepared
                    tested = test(
                        tested_network, test_loader, "Validation" if settings.validation else "Test"
                    )
                    if not math.isfinite(tested.loss):
                        raise RunError(f"after its last batch: the test loss is {tested.loss}")
                    accelerator.print()
                    run = _with_epoch(run, progress, trained, tested, time.perf_counter() - started)
                    progress = Progress()
            _keep(run, parts, progress, accelerator)
            if accelerator.is_main_process and not progress.batches:
                after_epoch(run.history)
            if stop() and len(run.history) < settings.epochs:
                where = f"in epoch {epoch}" if progress.batches else f"after epoch {epoch}"
                raise Interrupted(
                    f"stopped {where} by {signal.Signals(interrupts.signal).name}; all is kept in {folder}: "
                    "go on with resume=True (--resume)",
                    128 + interrupts.signal,
                )
    return run.history


def _check_size(network: nn.Module, settings: Settings) -> None:
    size = image_size(settings, epoch=1)
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, size, size))
    except RuntimeError as error:
        raise UserError(
            f"--first-size {size} does not fit the model {settings.model}: give a larger one, up to 32"
        ) from error


def _with_epoch(run: Run, progress: Progress, trained: Scores, tested: Scores, seconds: float) -> Run:
    row = Epoch(len(run.history) + 1, progress.learning_rate, *trained[:2], *tested[:2], seconds)
    log = f"{run.log}Epoch {row.epoch}\n{trained.line}\n{tested.line}\n\n"
    return run._replace(history=[*run.history, records.rounded(row)], log=log)


def _keep(run: Run, parts: dict, progress: Progress, accelerator: Accelerator) -> None:
    """Writes the checkpoint and, after a whole epoch, the records; one process does, for all."""
    state = {
        "settings": asdict(run.settings),
        "facts": run.facts,
        "history": [list(row) for row in run.history],
        "log": run.log,
        "progress": asdict(progress),
        "random": gather_object([checkpoint.random_state()]),
        **{name: part.state_dict() for name, part in parts.items()},
    }
    if not accelerator.is_main_process:
        return
    try:
        checkpoint.save(run.folder, state)
        if not progress.batches:
            records.write(run, parts["network"])
    except OSError as error:
        problem = f"{run.folder} cannot be written after epoch {len(run.history)} ({error.strerror or error})"
        advice = "make room or bring the folder back, then go on with --resume: what was kept before is whole"
        raise RunError(f"{problem}: {advice}") from error


def _restore(run: Run, parts: dict, state: dict, accelerator: Accelerator) -> tuple[Run, Progress]:
    """Puts everything where a checkpoint has it, and shows the log so far."""
    try:
        history = [Epoch(*row) for row in state["history"]]
        facts = records.continued(state["facts"], run.facts, len(history) + 1)
        run = run._replace(facts=facts, history=history, log=state["log"])
        progress = Progress(**state["progress"])
        for name, part in parts.items():
            part.load_state_dict(state[name])
        if len(state["random"]) == accelerator.num_processes:
            checkpoint.set_random_state(state["random"][accelerator.process_index])
    except UserError:
        raise
    except Exception as error:  # Of a network that was changed since, each part fails as it likes.
        reason = " ".join(str(error).split())[:120]
        path = run.folder / records.CHECKPOINT
        raise UserError(f"{path} is of another network or machine ({reason}): train anew") from error
    accelerator.print(run.log, end="")
    # A run that was killed between its checkpoint and its records has the older ones there.
    if history and accelerator.is_main_process and not progress.batches:
        records.write(run, parts["network"])
    return run, progress
