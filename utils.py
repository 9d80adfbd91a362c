"""The training and test loops, one epoch each, and `fit`, which runs them to the end."""

import io
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from tqdm import tqdm

import records
from dataset import Data, train_transform
from errors import UserError
from loaders import Loader, default_workers, loaders, normalise
from records import Epoch, Run
from settings import Settings, image_size

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
"""Our names and Accelerate's."""

FIT_TO = 1_000
"""Training images that a network's fit_to() is shown."""

REFRESH = 10
"""Batches between two looks at the loss: each makes a GPU wait for the CPU."""


class Scores(NamedTuple):
    """Of one pass over a loader."""

    loss: float
    """Mean cross-entropy, nats an image."""
    accuracy: float
    """Per cent."""
    line: str
    """As it was printed."""


def make_accelerator(device: str = "auto", precision: str = "auto") -> Accelerator:
    """Where and how precisely to train.

    device: "auto" takes CUDA, else Apple's MPS, else the CPU.
    precision: of the convolutions in training; "auto" takes what the device computes faster than float32:
    bfloat16, or float16 on GPUs older than that; float32 where it has neither.

    Raises UserError for names that are unknown and for hardware that is not there.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device not in DEVICES:
        raise UserError(f"unknown device {device!r}: choose one of {', '.join(DEVICES)}")
    if device == "auto":
        device = "cuda" if there["cuda"] else "mps" if there["mps"] else "cpu"
    if not there[device]:
        raise UserError(f"this machine has no {device} device: use --device auto")
    fast = {"cpu": _fast_on_cpu, "cuda": _fast_on_cuda, "mps": lambda: ["float32"]}[device]()
    if precision not in ("auto", *PRECISIONS):
        raise UserError(f"unknown precision {precision!r}: choose one of auto, {', '.join(PRECISIONS)}")
    if precision != "auto" and precision not in fast:
        raise UserError(f"{device} has no fast {precision} here: choose one of auto, {', '.join(fast)}")
    # One Accelerator's choices would otherwise bind every later one of the process.
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()
    mixed_precision = PRECISIONS[fast[0] if precision == "auto" else precision]
    return Accelerator(cpu=device == "cpu", mixed_precision=mixed_precision)


def precision_of(accelerator: Accelerator) -> str:
    """Our name of what it trains in, a key of PRECISIONS."""
    return next(ours for ours, theirs in PRECISIONS.items() if theirs == accelerator.mixed_precision)


def _fast_on_cpu() -> list[str]:
    return ["bfloat16", "float32"] if torch.ops.mkldnn._is_mkldnn_bf16_supported() else ["float32"]


def _fast_on_cuda() -> list[str]:
    bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return ["bfloat16", "float16", "float32"] if bfloat16 else ["float16", "float32"]


def train(
    network: nn.Module,
    loader: Loader,
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler,
    accelerator: Accelerator,
    label_smoothing: float = 0.0,
) -> Scores:
    """One epoch of training; prints `Train: Loss=1.7162 Batch_id=390 Accuracy=33.76: 100%|...`.

    network, optimizer: as `accelerator.prepare` returned them.
    label_smoothing: in 0..1, for the loss that is minimised; the losses shown are without it, so that they
    compare with those on the test set.
    """
    network.train()
    total_loss = correct = torch.zeros((), device=accelerator.device)
    seen = 0
    bar_format = "{l_bar}{bar:10}{r_bar}"
    bar = tqdm(loader, "Train", leave=False, file=sys.stdout, bar_format=bar_format, mininterval=0.5)
    for batch_id, (images, labels) in enumerate(bar):
        logits = network(images)
        accelerator.backward(F.cross_entropy(logits, labels, label_smoothing=label_smoothing))
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()

        logits = logits.detach()
        loss = F.cross_entropy(logits, labels)
        total_loss = total_loss + loss * len(labels)
        correct = correct + (logits.argmax(1) == labels).sum()
        seen += len(labels)
        if batch_id % REFRESH == 0 or batch_id == len(loader) - 1:
            accuracy = 100 * correct.item() / seen
            bar.set_description(
                f"Train: Loss={loss.item():.4f} Batch_id={batch_id} Accuracy={accuracy:.2f}", False
            )
    line = str(bar)
    bar.close()
    print(line, flush=True)
    return Scores(total_loss.item() / seen, 100 * correct.item() / seen, line)


def test(network: nn.Module, loader: Loader, name: str = "Test") -> Scores:
    """One pass over the test set; prints `Test set: Average loss: 1.5116, Accuracy: 4462/10000 (44.62%)`.

    In float32 if `network` is a bare one, in the precision of training if `accelerator.prepare` returned it.
    name: what the set is called in that line.
    """
    logits, labels = predict(network, loader)
    loss = F.cross_entropy(logits, labels).item()
    correct = (logits.argmax(1) == labels).sum().item()
    accuracy = 100 * correct / len(labels)
    line = f"{name} set: Average loss: {loss:.4f}, Accuracy: {correct}/{len(labels)} ({accuracy:.2f}%)"
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


def make_optimizer(
    network: nn.Module, settings: Settings, steps: int
) -> tuple[torch.optim.Optimizer, OneCycleLR]:
    """SGD with Nesterov momentum on a one-cycle schedule (Smith & Topin, 2018, https://arxiv.org/abs/1708.07120).

    The rate rises over a fifth of the steps and falls to nothing over the rest, both in a straight line.
    Weight decay is kept off biases and norms: there it only shrinks the scale (He et al., 2018,
    https://arxiv.org/abs/1812.01187). Biases may learn at a rate of their own, settings.bias_rate times the
    kernels': in short runs they are what lags behind (Page, 2019, https://github.com/davidcpage/cifar10-fast).
    """
    kernels, biases, scales = [], [], []
    for name, parameter in network.named_parameters():
        (kernels if parameter.ndim > 1 else biases if name.endswith("bias") else scales).append(parameter)
    rate = settings.learning_rate
    groups = [
        {"params": kernels, "lr": rate, "weight_decay": settings.weight_decay},
        {"params": scales, "lr": rate, "weight_decay": 0.0},
        {"params": biases, "lr": rate * settings.bias_rate, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, momentum=0.9, nesterov=True, fused=True)
    scheduler = OneCycleLR(
        optimizer,
        [group["lr"] for group in groups],
        total_steps=max(steps, 2),
        pct_start=0.2,
        anneal_strategy="linear",
        cycle_momentum=False,
        final_div_factor=1e4,
    )
    return optimizer, scheduler


def fit(
    network: nn.Module,
    data: Data,
    settings: Settings,
    folder: Path,
    resume: bool = False,
    device: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
) -> list[Epoch]:
    """Trains `network` for settings.epochs epochs, testing after each, and keeps the records in `folder`.

    network: its first weights are its own; it is trained in place and left on the device.
    folder: written after every epoch (see records.py); must hold no run, or with `resume` one of the same
    settings, which then goes on after its last whole epoch and ends as if it had never stopped.
    device, precision: see make_accelerator. workers: see loaders.loaders.

    Tests are in the precision of training, the last one in float32: it is the result.

    Returns the history. Raises UserError for anything that does not fit, before anything is written.
    """
    if settings.dataset != data.name:
        raise UserError(f"the settings are for {settings.dataset}, the data is {data.name}: use the same")
    if settings.validation:
        data = data.validation()
    accelerator = make_accelerator(device, precision)
    device = accelerator.device
    workers = default_workers(device) if workers is None else workers
    transform = train_transform(data.mean, data.std, settings.augmentation)
    train_loader, test_loader = loaders(data, settings.batch_size, settings.seed, workers, device, transform)
    _check_size(network, settings)
    records.claim(folder, settings, resume)
    if (folder / records.SETTINGS).exists() and not (folder / records.CHECKPOINT).exists():
        raise UserError(
            f"{folder} holds a run, but no {records.CHECKPOINT} to go on from: name another folder"
        )

    torch.manual_seed(settings.seed)
    # Numbers below 1e-38 are worth nothing here, and a CPU computes with them many times slower.
    torch.set_flush_denormal(True)
    if hasattr(network, "fit_to"):  # A network whose first layer is made for the data.
        images = torch.from_numpy(data.train_images[:FIT_TO])
        network.fit_to(normalise(images, torch.tensor(data.mean), torch.tensor(data.std)))
    network.to(device, memory_format=torch.channels_last)
    optimizer, scheduler = make_optimizer(network, settings, settings.epochs * len(train_loader))
    # Accelerate rewires the module it is handed to compute in mixed precision; in a shell of its own,
    # `network` itself stays as it is, and tests in float32.
    prepared, optimizer = accelerator.prepare(nn.Sequential(network), optimizer)

    facts = records.collect_facts(data.facts(), device, precision_of(accelerator), workers)
    run = Run(folder, settings, facts, [], "")
    parts = {"network": network, "optimizer": optimizer, "scheduler": scheduler}
    if accelerator.scaler is not None:
        parts["scaler"] = accelerator.scaler
    if resume and (folder / records.CHECKPOINT).exists():
        run = _load_checkpoint(run, parts)
        print(run.log, end="")

    for epoch in range(len(run.history) + 1, settings.epochs + 1):
        started = time.perf_counter()
        print(f"Epoch {epoch}", flush=True)
        train_loader.set_epoch(epoch, image_size(settings, epoch))
        learning_rate = optimizer.param_groups[0]["lr"]
        trained = train(prepared, train_loader, optimizer, scheduler, accelerator, settings.label_smoothing)
        # The last test is the result: what the saved weights give in float32, on any machine.
        tested_network = network if epoch == settings.epochs else prepared
        tested = test(tested_network, test_loader, "Validation" if settings.validation else "Test")
        print()
        seconds = time.perf_counter() - started
        row = records.rounded(Epoch(epoch, learning_rate, *trained[:2], *tested[:2], seconds))
        log = f"{run.log}Epoch {epoch}\n{trained.line}\n{tested.line}\n\n"
        run = run._replace(history=[*run.history, row], log=log)
        _save_checkpoint(run, parts)
        records.write(run, network)
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


def _save_checkpoint(run: Run, parts: dict) -> None:
    state = {name: part.state_dict() for name, part in parts.items()}
    state |= {"history": [list(row) for row in run.history], "log": run.log, "random": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["random_cuda"] = torch.cuda.get_rng_state_all()
    content = io.BytesIO()
    torch.save(state, content)
    records.replace(run.folder / records.CHECKPOINT, content.getvalue())


def _load_checkpoint(run: Run, parts: dict) -> Run:
    path = run.folder / records.CHECKPOINT
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        torch.set_rng_state(state["random"])
        if "random_cuda" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["random_cuda"])
        return run._replace(history=[Epoch(*row) for row in state["history"]], log=state["log"])
    except Exception as error:  # What is damaged fails as it likes: an IndexError in the pickle, say.
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path} cannot be resumed from ({reason}): train anew in another folder") from error
