"""Measures the assignment's requirements on a network, its transforms and the files of a run."""

import ast
import copy
import json
import os
import re
import textwrap
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch.nn.functional as F
from torch import nn

import dataset
import model
import utils
from s9 import records
from s9.analysis.graph import Operation, trace
from s9.analysis.receptive_field import receptive_field
from s9.data import download
from s9.data.augment import A  # Albumentations, told not to look for updates
from s9.data.sources import Data, load_recorded
from s9.errors import UserError, one_line
from s9.records import Run
from tools import evidence

BLOCKS = ("C1", "C2", "C3", "C4")
PARAMETER_LIMIT = 200_000
RECEPTIVE_FIELD_LIMIT = 44
ACCURACY_LIMIT = 85.0
HOLE = 16
WIDTH = 100  # of a printed line; a Colab cell shows about as many characters
NOTEBOOK = Path(__file__).parent.parent / "S9.ipynb"


class Check(NamedTuple):
    """A requirement, the value measured, and whether it is met."""

    requirement: str
    measured: str
    met: bool


def audit(
    network: nn.Module, transform: A.Compose, run: Run, data: Data | None = None, notebook: Path = NOTEBOOK
) -> list[Check]:
    """One Check for each requirement, in the assignment's order.

    network: takes (batch, 3, 32, 32); `run` must hold its weights. transform: takes (32, 32, 3) uint8.
    data: the run's weights are tested on it. None: the accuracy is the recorded one, and the Check says so.
    notebook: must define no function or class.

    Never raises for a network, transform or file that breaks a rule: what cannot be measured is not met.
    """
    measures: tuple[tuple, ...] = (
        ("C1 C2 C3 C4 O, three convolutions a block", _structure, network),
        ("third convolution shrinks the map", _shrinking, network),
        ("no max-pooling", _max_pooling, network),
        (f"receptive field > {RECEPTIVE_FIELD_LIMIT}", _receptive_field, network),
        ("depthwise separable convolution", _separable, network),
        ("dilated convolution", _dilated, network),
        ("global average pooling", _global_average, network),
        ("HorizontalFlip", _flip, transform),
        ("ShiftScaleRotate", _shift_scale_rotate, transform),
        (f"CoarseDropout, one {HOLE}x{HOLE} hole of the mean", _coarse_dropout, transform),
        (f"test accuracy >= {ACCURACY_LIMIT:g}%, last epoch", _accuracy, run, data),
        ("a test after every epoch", _tested, run),
        ("log, history and settings agree", _records, run),
        (f"fewer than {PARAMETER_LIMIT:,} parameters", _parameters, network),
        ("the run's weights are this network's", _weights, network, run),
        ("modular code", _modular, network, notebook),
    )
    checks = []
    for requirement, measure, *given in measures:
        try:
            checks.append(Check(requirement, *measure(*given)))
        except Exception as error:  # Networks, transforms and notebooks of others may raise anything.
            checks.append(Check(requirement, f"cannot be measured: {one_line(error)}", False))
    return checks


def format_checks(checks: list[Check]) -> str:
    """The checks as a table of at most 100 columns, with a last line that counts those that are met."""
    column = max(len(check.requirement) for check in checks) + 8
    lines = []
    for check in checks:
        start = f"{'ok' if check.met else 'FAIL':<6}{check.requirement:<{column - 6}}"
        lines += textwrap.wrap(check.measured, WIDTH, initial_indent=start, subsequent_indent=" " * column)
    met = sum(check.met for check in checks)
    return "\n".join([*lines, f"{met} of {len(checks)} requirements met"])


def _structure(network: nn.Module) -> tuple[str, bool]:
    names = [name for name, _ in network.named_children()]
    counts = [
        sum(any(isinstance(part, nn.Conv2d) for part in unit.modules()) for unit in block.children())
        for block in (getattr(network, name) for name in BLOCKS)
    ]
    met = names == [*BLOCKS, "O"] and counts == [3] * len(BLOCKS)
    return f"{' '.join(names)}, {' '.join(map(str, counts))} convolutional units", met


def _shrinking(network: nn.Module) -> tuple[str, bool]:
    rows, found, met = receptive_field(network), [], True
    for block in BLOCKS:
        names = [f"{block}.{name}." for name, _ in getattr(network, block).named_children()]
        units = [[row for row in rows if f"{row.layer}.".startswith(name)] for name in names]
        *early, last = ([row for row in unit if row.n_out != row.n_in] for unit in units)
        met &= not any(early) and (bool(last) or block == BLOCKS[-1])
        how = []
        for row in last:
            layer = network.get_submodule(row.layer)
            strided, dilation = row.s == 2, getattr(layer, "dilation", (1,))
            if isinstance(layer, nn.Conv2d) and (strided or dilation[0] > 1):
                how += ["stride 2"] * strided + [f"dilation {dilation[0]}"] * (dilation[0] > 1)
            else:
                met, how = False, [*how, type(layer).__name__]
        found.append(f"{block} {units[0][0].n_in}>{units[-1][-1].n_out} {' '.join(how) or '(GAP follows)'}")
    return ", ".join(found), met


def _max_pooling(network: nn.Module) -> tuple[str, bool]:
    found = 0
    for operation in _used(network):
        summarises = operation.after[2:].numel() < operation.arguments[0].shape[2:].numel()
        found += "max_pool" in operation.name or (operation.name in ("amax", "max") and summarises)
    return f"{found} found", not found


def _used(network: nn.Module) -> list[Operation]:
    """The operations that the output depends on, without "images" and "output"."""
    return [operation for operation in trace(network)[1:-1] if operation.used]


def _receptive_field(network: nn.Module) -> tuple[str, bool]:
    size = receptive_field(network)[-1].r_out
    smallest = size if isinstance(size, int) else min(size)
    return str(size), smallest > RECEPTIVE_FIELD_LIMIT


def _convolution(network: nn.Module, operation: Operation) -> nn.Conv2d | None:
    """The layer that an operation belongs to, if the output depends on it and it is a convolution."""
    layer = network.get_submodule(operation.layer) if operation.used and operation.layer else None
    return layer if isinstance(layer, nn.Conv2d) else None


def _separable(network: nn.Module) -> tuple[str, bool]:
    """A depthwise convolution, and as the next one to take its output a 1x1 convolution across channels.

    Only pointwise layers may be between them, so a classifier after the pooling does not count.
    """
    operations, names = trace(network), []
    for number, operation in enumerate(operations):
        layer = _convolution(network, operation)
        if layer is None or not 1 < layer.groups == layer.in_channels or max(layer.kernel_size) == 1:
            continue
        reached = {number}
        for later, follower in enumerate(operations[number + 1 :], number + 1):
            if reached.isdisjoint(follower.sources):
                continue
            pointwise = _convolution(network, follower)
            if pointwise is not None and pointwise.kernel_size == (1, 1) and pointwise.groups == 1:
                names.append(operation.layer)
                break
            if follower.pointwise:
                reached.add(later)
    return ", ".join(names) or "none", bool(names)


def _dilated(network: nn.Module) -> tuple[str, bool]:
    found = []
    for operation in _used(network):
        layer = _convolution(network, operation)
        if layer and any(d > 1 and k > 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)):
            found.append(f"{operation.layer} by {max(layer.dilation)}")
    return ", ".join(found) or "none", bool(found)


def _global_average(network: nn.Module) -> tuple[str, bool]:
    """An average over the whole map, after which nothing has a height or a width any more."""
    found: list[str] = []
    for operation in _used(network):
        before, after = operation.arguments[0].shape[2:], operation.after[2:]
        if after.numel() > 1:
            found = []
        elif operation.name in ("mean", "avg_pool2d") and before.numel() > 1:
            found.append(f"{operation.layer or operation.name} over {'x'.join(map(str, before))}")
    return ", ".join(found) or "none", bool(found)


def _step(transform: A.Compose, kind: type) -> tuple[A.BasicTransform, A.BasicTransform]:
    """The one transform of this very class, and a copy of it with p=1.

    Raises UserError if there is none, or more, or none is used.
    """
    if transform.p == 0:
        raise UserError("the transforms together have p=0")
    steps = [step for step in transform.transforms if type(step) is kind]
    if len(steps) != 1:
        raise UserError(f"{len(steps)} of them")
    always: A.BasicTransform = copy.deepcopy(steps[0])
    always.p = 1.0
    return steps[0], always


def _flip(transform: A.Compose) -> tuple[str, bool]:
    step, always = _step(transform, A.HorizontalFlip)
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return f"p={step.p:g}", step.p > 0 and np.array_equal(always(image=noise)["image"], noise[:, ::-1])


def _shift_scale_rotate(transform: A.Compose) -> tuple[str, bool]:
    step, _ = _step(transform, A.ShiftScaleRotate)
    arguments = step.get_transform_init_args()
    names = ("shift_limit_x", "shift_limit_y", "scale_limit", "rotate_limit")
    limits = [(name, *arguments[name]) for name in names]
    shown = " ".join(f"{name}=({low:.4g}, {high:.4g})" for name, low, high in limits)
    moves = all(low != high for _, low, high in limits)
    return f"p={step.p:g} {shown}", moves and step.p > 0


def _coarse_dropout(transform: A.Compose) -> tuple[str, bool]:
    """Looks at pixels: on an image without the fill's colour, the filled ones must be one 16x16 square."""
    step, always = _step(transform, A.CoarseDropout)
    mean, sizes = tuple(round(255 * channel) for channel in dataset.MEAN), set()
    for _ in range(50):
        changed = always(image=np.full((32, 32, 3), 255, np.uint8))["image"]
        rows, columns = np.nonzero((changed != 255).any(2))
        hole = changed[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        sizes.add("{}x{}".format(*hole.shape) if (hole == mean).all() else "another shape or colour")
    kinds = [type(other) for other in transform.transforms]
    bytes_still = A.Normalize not in kinds[: kinds.index(A.CoarseDropout)]
    met = sizes == {f"{HOLE}x{HOLE}"} and step.fill_mask is None and step.p > 0 and bytes_still
    found = " or ".join(sorted(sizes)) + ("" if bytes_still else " after Normalize")
    return f"p={step.p:g} fill={mean} fill_mask={step.fill_mask} hole {found}", met


def _accuracy(run: Run, data: Data | None) -> tuple[str, bool]:
    last, settings = run.history[-1], run.settings
    counts = settings.dataset == "cifar10" and not settings.validation
    where = f"on {settings.dataset}'s {'validation' if settings.validation else 'test'} set"
    recorded = f"{last.test_accuracy:.2f}%, loss {last.test_loss:.4f}"
    if data is None:
        met = counts and last.test_accuracy >= ACCURACY_LIMIT
        return f"{recorded} {where}: as recorded, not measured", met
    data = data.validation() if settings.validation else data
    network = utils.trained_network(run, None)
    _, loader = dataset.loaders(data, device=next(network.parameters()).device)
    logits, labels = utils.predict(network, loader)
    correct = (logits.argmax(1) == labels).numpy()
    accuracy, loss = 100 * float(correct.mean()), F.cross_entropy(logits, labels).item()
    # Rounding on another machine may change an image or two. Other copies of CIFAR-10 differ in some images.
    fingerprint, expected = data.fingerprint(), run.facts["data"]["fingerprint"]
    tolerances = (0.02, 0.0005) if fingerprint == expected else (0.5, 0.02)
    differences = abs(accuracy - last.test_accuracy), abs(loss - last.test_loss)
    agree = all(difference <= most for difference, most in zip(differences, tolerances, strict=True))
    text = f"{accuracy:.2f}%, loss {loss:.4f} {where}, {'as recorded' if agree else f'recorded {recorded}'}"
    if fingerprint != expected:
        text += f"; data {fingerprint}, recorded {expected}"
    if settings.dataset == "cifar10" and (copies := evidence.jpeg_copies(data.test_images)).any():
        text += f"; {100 * correct[~copies].mean():.2f}% without {copies.sum()} images that are JPEG copies"
    return text, agree and counts and accuracy >= ACCURACY_LIMIT


def _tested(run: Run) -> tuple[str, bool]:
    tests, epochs = len(re.findall("(?:Test|Validation) set: Average loss: ", run.log)), run.settings.epochs
    return f"{tests} tests in {epochs} epochs", tests == len(run.history) == epochs


def _records(run: Run) -> tuple[str, bool]:
    lines = evidence.disagreements(run)
    return "; ".join(lines[:2]) or f"{len(run.history)} epochs", not lines


def _parameters(network: nn.Module) -> tuple[str, bool]:
    count = model.count_parameters(network)
    return f"{count:,}", count < PARAMETER_LIMIT


def _weights(network: nn.Module, run: Run) -> tuple[str, bool]:
    records.read_weights(run.folder, network)
    return records.WEIGHTS, True


def _modular(network: nn.Module, notebook: Path) -> tuple[str, bool]:
    """Network, dataset and loops come from their modules, and the notebook defines nothing."""
    homes = ", ".join(part.__module__ for part in (type(network), dataset.train_transform, utils.train))
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    trees = [ast.parse(re.sub(r"(?m)^([ \t]*)[%!].*", r"\1pass", source)) for source in sources]
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    defined = sum(isinstance(node, kinds) for tree in trees for node in ast.walk(tree))
    met = defined == 0 and homes == "model, dataset, utils"
    return f"{homes}; {notebook.name} defines {defined} functions or classes", met


def print_audit(run: Run, data: Data | None = None, data_dir: str | None = None) -> int:
    """Prints the audit of a run; returns 0 if all requirements are met, else 1.

    data: the run's data if it is in memory. None: it is read from `data_dir`, from the environment variable
    CIFAR10_DIR or from the cache; nothing is downloaded.

    Raises UserError for a run with another transform, and for a folder that does not hold the data.
    """
    if "transform" in run.facts:
        raise UserError(f"{run.folder} was trained with another transform: audit a run of train_transform")
    settings = run.settings
    if data is None and settings.dataset == "cifar10":
        data_dir = data_dir or os.environ.get("CIFAR10_DIR") or download.cached()
    if data is None and (data_dir or settings.dataset == "digits"):
        data = load_recorded(settings.dataset, run.facts["data"], data_dir)
    transform = dataset.train_transform(probability=settings.augmentation, shift=settings.shift)
    checks = audit(utils.network_of(run), transform, run, data)
    print(format_checks(checks))
    return 0 if all(check.met for check in checks) else 1
