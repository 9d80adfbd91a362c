"""The training and test loops, one epoch each, and `fit`, which runs them to the end."""

import copy
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import albumentations as A
import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import reduce
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from dataset import loaders, train_transform
from model import build
from s9 import records
from s9.data.device_loader import Loader, normalise
from s9.data.sources import Data, description
from s9.engine.failures import FiniteCheck, delayed_signals, explain_failures
from s9.engine.hardware import Hardware, make_accelerator, precision_of
from s9.engine.progress import Forecast, ProgressBar
from s9.engine.run import Progress, RunState, on_main_process, start_from
from s9.engine.step import GraphedStep
from s9.errors import Interrupted, RunError, UserError, option
from s9.records import Epoch, Run
from s9.settings import Settings, image_size

WHITENING_IMAGES = 1_000
"""Training images that a network's init_whitening() computes its first layer from."""
REFRESH = 10
"""Batches between two looks at the loss: each makes a GPU wait for the CPU."""


def new_network(name: str, classes: int = 10) -> nn.Module:
    """As model.build, but raises UserError."""
    try:
        return build(name, classes)
    except ValueError as error:
        raise UserError(str(error)) from error


class Scores(NamedTuple):
    """Of one pass over a loader: mean cross-entropy in nats, accuracy in per cent, and both as printed."""

    loss: float
    accuracy: float
    line: str


def cross_entropies(logits: Tensor, labels: Tensor, label_smoothing: float) -> tuple[Tensor, Tensor]:
    """Mean cross-entropies of float32 logits (n, classes): with smoothed labels, to minimise, and without.

    labels: int64 (n,). label_smoothing: in 0..1. Both are the bits of F.cross_entropy, from one log-softmax.
    """
    log_probabilities = F.log_softmax(logits, 1)
    plain = F.nll_loss(log_probabilities, labels)
    uniform = -log_probabilities.sum(1)
    smoothing = uniform.sum() / len(labels) * (label_smoothing / logits.shape[1])
    return (1 - label_smoothing) * plain + smoothing, plain


@torch.backends.cudnn.flags(enabled=True, deterministic=True)  # Otherwise a GPU's runs need not repeat.
def train(
    network: nn.Module,
    loader: Loader,
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler,
    accelerator: Accelerator,
    label_smoothing: float = 0.0,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
    bar: ProgressBar | None = None,
    step: GraphedStep | None = None,
) -> Scores:
    """One epoch of training; prints `Train: Loss=1.7162 Batch_id=390 Accuracy=33.76: 100%|...`.

    The loss shown is that of the last batch, the accuracy that of the epoch so far; the loss returned is the
    epoch's mean.

    network, optimizer: as returned by accelerator.prepare.
    label_smoothing: in 0..1, for the loss that is minimised; the losses shown are without it, as on tests.
    progress: of the epoch so far, if it was interrupted; updated in place.
    stop: called after every batch but the last; True ends the epoch early.
    step: runs forward and backward pass as a CUDA graph.

    Raises RunError if a loss or a gradient is not finite.
    """

    def forward_backward(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = network(images)
        loss, plain_loss = cross_entropies(logits, labels, label_smoothing)
        if accelerator.num_processes > 1:  # Accelerate takes the mean over processes; their parts may differ.
            loss = loss * (len(labels) * accelerator.num_processes / loader.sampler.size(batch_id))
        accelerator.backward(loss)
        correct = (logits.argmax(1) == labels).sum(dtype=torch.float32)
        return loss.detach(), plain_loss.detach(), correct

    compute = partial(step, forward_backward) if step else forward_backward
    network.train()
    progress = progress or Progress()
    sums = torch.tensor([progress.loss, progress.correct], dtype=torch.float32, device=accelerator.device)
    check = FiniteCheck(network)
    bar = bar or ProgressBar(accelerator.is_main_process)
    bar.start(len(loader), progress.batches)
    for batch_id, (images, labels) in enumerate(loader, progress.batches):
        loss, plain_loss, correct = compute(images, labels)
        check.update(batch_id, loss, gradients=accelerator.scaler is None)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()

        sums += torch.stack([plain_loss * len(labels), correct])
        progress.batches, progress.images = batch_id + 1, progress.images + len(labels)
        last = progress.batches == len(loader)
        stopped = not last and stop()
        text = None
        if batch_id % REFRESH == 0 or last or stopped:
            check.raise_if_found()
            total = torch.cat([sums, sums.new_tensor([progress.images])])
            loss_sum, right, seen = accelerator.reduce(total).tolist()
            # Of all processes; only an epoch of a single one is ever interrupted and resumed.
            progress.loss, progress.correct = loss_sum, int(right)
            accuracy = 100 * right / seen
            text = f"Train: Loss={plain_loss.item():.4f} Batch_id={batch_id} Accuracy={accuracy:.2f}"
        bar.batch_done(text)
        if stopped:
            break
    line = bar.finish()
    accelerator.print(line, flush=True)
    return Scores(loss_sum / seen, accuracy, line)


def test(network: nn.Module, loader: Loader, name: str = "Test") -> Scores:
    """One pass over the test set; prints `Test set: Average loss: 1.5116, Accuracy: 4462/10000 (44.62%)`.

    In float32 if `network` is a bare one, in the precision of training if `accelerator.prepare` returned it.
    """
    logits, labels = predict(network, loader)
    count = len(labels)
    loss = F.cross_entropy(logits, labels).item()
    correct = (logits.argmax(1) == labels).sum().item()
    if loader.processes > 1:
        total = loss * count if count else 0.0  # The mean of nothing is not a number.
        sums = torch.tensor([total, correct, count], device=loader.device)
        total, correct, count = reduce(sums, "sum").tolist()
        loss = total / count
    accuracy = 100 * correct / count
    line = f"{name} set: Average loss: {loss:.4f}, Accuracy: {correct:.0f}/{count:.0f} ({accuracy:.2f}%)"
    if loader.process == 0:
        print(line, flush=True)
    return Scores(loss, accuracy, line)


@torch.no_grad()
def predict(network: nn.Module, loader: Loader) -> tuple[Tensor, Tensor]:
    """Float32 logits (n, classes) and int64 labels (n,) of a loader's images in its order, on the CPU."""
    network.eval()
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        pairs = [(network(images).cpu(), labels.cpu()) for images, labels in loader]
    logits, labels = zip(*pairs, strict=True)
    return torch.cat(logits), torch.cat(labels)


def probabilities(network: nn.Module, data: Data) -> np.ndarray:
    """Of each class for each test image: float32 (n, classes)."""
    _, test_loader = loaders(data, device=next(network.parameters()).device)
    logits, _ = predict(network, test_loader)
    return logits.softmax(1).numpy()


class Trained(NamedTuple):
    """A finished run; the network is on the device that it was trained on."""

    network: nn.Module
    history: list[Epoch]
    folder: Path


def fit(
    settings: Settings,
    data: Data,
    folder: Path | None = None,
    runs: Path = records.RUNS,
    resume: bool = False,
    hardware: Hardware = Hardware(),  # noqa: B008, it cannot be changed.
    after_epoch: Callable[[Run], None] = lambda run: None,
    transform: A.Compose | None = None,
    init: Path | None = None,
) -> Trained:
    """Trains the network that the settings name, from its seed, and tests it after every epoch.

    On a CPU, a call repeats to the bit, whatever ran before it in the same process.

    folder: of the run, which must not hold one; None: the first free <runs>/<model>-<dataset>-N.
    resume: continue the run in `folder`, or the last saved one in `runs`, as if it had never stopped.
    after_epoch: called in the main process with the records so far, once an epoch is saved.
    transform: an Albumentations Compose for the training images in place of dataset.train_transform, see
    check_transform; it overrides settings.augmentation and settings.shift, and the record holds it.
    init: folder of a run to take the initial weights from, see start_from.

    Tests run in the precision of training, the last one in float32: it is the result. Several processes
    (accelerate launch) share each batch; the main process writes the folder.

    Raises UserError for settings, data or a folder that do not fit, before anything is trained; RunError if
    the training fails; Interrupted if it is stopped by a signal (Ctrl-C), after the run is saved.
    """
    accelerator = make_accelerator(hardware.device, hardware.precision)
    if settings.dataset != data.name:
        raise UserError(f"the settings are for {settings.dataset}, the data is {data.name}: use the same")
    if settings.validation:
        data = data.validation()
    network = _first_network(settings, data)
    extra = {"transform": " ".join(repr(transform).split())} if transform else {}
    if init:
        extra["init"] = start_from(init, network, data.classes)
    augmentation = transform or train_transform(data.mean, data.std, settings.augmentation, settings.shift)
    share = accelerator.process_index, accelerator.num_processes
    both = loaders(
        data, settings.batch_size, settings.seed, hardware.workers, accelerator.device, augmentation, *share
    )
    claim = records.run_to_resume if resume else records.create_run
    folder = on_main_process(accelerator, lambda: claim(settings, folder, Path(runs)))

    with records.given_back(folder):
        torch.manual_seed(settings.seed + accelerator.process_index)
        workers = both[0].num_workers
        facts = records.collect_facts(data.facts(), accelerator.device, precision_of(accelerator), workers)
        run = Run(folder, settings, facts | extra, [], "")
        state = RunState(run, network, both, accelerator, hardware.graph)
        if resume:
            state.restore()
        else:
            state.save()  # From here on the run can be resumed.
    what = f"{settings.model} on {data.name} for {settings.epochs} epochs, seed {settings.seed}"
    begun = f"{what}: {'resumed' if resume else 'saved'} in {folder}\n\n"
    accelerator.print(begun + state.run.log, end="", flush=True)
    _train_epochs(state, after_epoch)
    return Trained(network, state.run.history, folder)


def _first_network(settings: Settings, data: Data) -> nn.Module:
    """A new network of the settings' model, its weights drawn from the seed or whitening the images."""
    labels, last = np.concatenate([data.train_labels, data.test_labels]), len(data.classes) - 1
    if labels.min() < 0 or labels.max() > last:
        raise UserError(f"{data.name}: labels must be 0 to {last}, got {labels.min()} to {labels.max()}")
    if torch.get_default_dtype() != torch.float32:
        raise UserError(f"torch's default dtype is {torch.get_default_dtype()}: set it back to torch.float32")
    # Values below 1e-38 do not matter here, and a CPU computes with them many times slower.
    torch.set_flush_denormal(True)
    torch.manual_seed(settings.seed)
    network = new_network(settings.model, len(data.classes))
    size = image_size(settings, epoch=1)
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, size, size))
    except RuntimeError as error:
        problem = f"{option('first_size')} {size} is too small for the model {settings.model}"
        raise UserError(f"{problem}: use a larger one, at most 32") from error
    if (len(data.train_images) - 1) % settings.batch_size == 0:  # The last batch is one image.
        try:
            copy.deepcopy(network).train()(torch.zeros(1, 3, size, size))
        except ValueError as error:  # Of BatchNorm, if the last maps are one pixel.
            problem = f"a last batch of one image of {size} pixels cannot be normalised"
            raise UserError(f"{problem}: change {option('batch_size')}") from error
    if hasattr(network, "init_whitening"):
        images = torch.from_numpy(np.ascontiguousarray(data.train_images[:WHITENING_IMAGES]))
        network.init_whitening(normalise(images, torch.tensor(data.mean), torch.tensor(data.std)))
    return network


def _train_epochs(state: RunState, after_epoch: Callable[[Run], None]) -> None:
    """Trains from where `state` is to the last epoch; saves after each, and when a signal stops the run."""
    accelerator, run, settings = state.accelerator, state.run, state.run.settings
    epochs = range(len(run.history) + 1, settings.epochs + 1)
    chosen, data = records.hardware_in_words(run.facts), run.facts["data"]
    sizes, tested = [image_size(settings, epoch) for epoch in epochs], data["test"] / data["train"]
    batches, first = len(state.train_loader), state.progress.batches
    forecast = Forecast(chosen, sizes, batches, first, tested, accelerator.device)
    # Several processes cannot agree on the batch to stop at: there, signals act at once.
    with (
        delayed_signals(accelerator.num_processes == 1) as signals,
        ProgressBar(accelerator.is_main_process, forecast) as bar,
    ):
        for epoch in epochs:
            with explain_failures(epoch, run.folder, settings):
                _train_epoch(state, epoch, lambda: bool(signals), bar)
            state.save()
            if accelerator.is_main_process and not state.progress.batches:
                after_epoch(state.run)
            if signals and not state.run.complete:
                where = f"in epoch {epoch}" if state.progress.batches else f"after epoch {epoch}"
                raise Interrupted(where, signals[0], run.folder)


def _train_epoch(state: RunState, epoch: int, stop: Callable[[], bool], bar: ProgressBar) -> None:
    """One epoch and its test, or the part of it before `stop` is True."""
    accelerator, settings, progress = state.accelerator, state.run.settings, state.progress
    started = time.perf_counter() - progress.seconds
    accelerator.print(f"Epoch {epoch}", flush=True)
    state.train_loader.set_epoch(epoch, image_size(settings, epoch), progress.batches)
    if not progress.batches:
        progress.learning_rate = state.optimizer.param_groups[0]["lr"]
    parts = state.prepared, state.train_loader, state.optimizer, state.scheduler, accelerator
    trained = train(*parts, settings.label_smoothing, progress, stop, bar, state.step)
    progress.seconds = time.perf_counter() - started
    if progress.batches < len(state.train_loader):
        return
    # The last test is the result: that of the saved weights in float32, on any machine.
    network = state.network if epoch == settings.epochs else state.prepared
    tested = test(network, state.test_loader, "Validation" if settings.validation else "Test")
    if not math.isfinite(tested.loss):
        raise RunError(f"after its last batch: the test loss is {tested.loss}")
    accelerator.print()
    seconds = time.perf_counter() - started
    row = Epoch(epoch, progress.learning_rate, *trained[:2], *tested[:2], seconds)
    state.end_epoch(row, (trained.line, tested.line))


def network_of(run: Run) -> nn.Module:
    """A new network of a run's model and classes. Raises UserError if its record does not name them."""
    classes, _, _ = description(run.settings.dataset, run.facts.get("data", {}))
    return new_network(run.settings.model, len(classes))


def trained_network(run: Run, data: Data | None, device: str = "auto") -> nn.Module:
    """The network of a run with its weights. Raises UserError if it was trained on other data than `data`."""
    if data is not None:
        data = data.validation() if run.settings.validation else data
        records.check_data(run.facts["data"], data.facts())
    network = network_of(run)
    records.load_weights(run.folder, network)
    return network.to(make_accelerator(device, "float32").device, memory_format=torch.channels_last)
