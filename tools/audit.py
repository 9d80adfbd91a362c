"""Measures every requirement of the assignment on a live network, live transforms and a run's records."""

import ast
import copy
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import fx, nn

import dataset
import model
import utils
from s9 import records
from s9.analysis.graph import function_name, trace
from s9.analysis.receptive_field import POINTWISE_FAMILIES, POINTWISE_FUNCTIONS, Row, receptive_field
from s9.data.augment import A  # Albumentations, told not to look for updates
from s9.errors import UserError
from s9.records import Run

BLOCKS = ("C1", "C2", "C3", "C4")
PARAMETER_LIMIT = 200_000
RECEPTIVE_FIELD_LIMIT = 44
ACCURACY_LIMIT = 85.0
HOLE = 16


class Check(NamedTuple):
    """A requirement, the value measured, and whether it is met."""

    requirement: str
    measured: str
    met: bool


def audit(network: nn.Module, transform: A.Compose, run: Run, notebook: Path | None = None) -> list[Check]:
    """One Check a requirement, in the assignment's order.

    network: takes (batch, 3, 32, 32). transform: takes a uint8 image (32, 32, 3). run: gives the accuracy.
    notebook: the one that must hold no logic of its own; the repo's S9.ipynb if None.

    Never raises for a network or a transform that breaks a rule: what cannot be measured is not met.
    """
    notebook = notebook or Path(__file__).parent.parent / "S9.ipynb"
    measures: tuple[tuple[str, Callable[[], tuple[str, bool]]], ...] = (
        ("C1 C2 C3 C4 O, three convolutions a block", lambda: _structure(network)),
        ("a block shrinks in its third convolution, by stride 2 or dilation", lambda: _shrinking(network)),
        ("no max-pooling", lambda: _max_pooling(network)),
        (f"receptive field > {RECEPTIVE_FIELD_LIMIT}", lambda: _view(network)),
        ("a depthwise separable convolution", lambda: _separable(network)),
        ("a dilated convolution", lambda: _dilated(network)),
        ("global average pooling", lambda: _global_average(network)),
        ("HorizontalFlip", lambda: _flip(transform)),
        ("ShiftScaleRotate", lambda: _shift_scale_rotate(transform)),
        (f"CoarseDropout, one {HOLE}x{HOLE} hole, filled with the mean", lambda: _coarse_dropout(transform)),
        (f"test accuracy >= {ACCURACY_LIMIT:g}%, last epoch", lambda: _accuracy(run)),
        ("a test after every epoch", lambda: _tested(run)),
        (f"fewer than {PARAMETER_LIMIT:,} parameters", lambda: _parameters(network)),
        ("the run's weights are this network's", lambda: _weights(network, run)),
        ("modular code", lambda: _modular(network, notebook)),
    )
    return [Check(requirement, *_measured(measure)) for requirement, measure in measures]


def format_checks(checks: list[Check]) -> str:
    """A table as text: met or not, the requirement, the value measured; a last line that sums up."""
    width = max(len(check.requirement) for check in checks)
    lines = [
        f"{'ok  ' if check.met else 'FAIL'}  {check.requirement:<{width}}  {check.measured}"
        for check in checks
    ]
    met = sum(check.met for check in checks)
    return "\n".join([*lines, f"{met} of {len(checks)} requirements met"])


def _measured(measure: Callable[[], tuple[str, bool]]) -> tuple[str, bool]:
    try:
        return measure()
    except Exception as error:  # Networks, transforms and notebooks are anyone's: they fail as they like.
        return f"cannot be measured: {' '.join(str(error).split())[:100] or type(error).__name__}", False


def _convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [part for part in module.modules() if isinstance(part, nn.Conv2d)]


def _structure(network: nn.Module) -> tuple[str, bool]:
    names = [name for name, _ in network.named_children()]
    counts = [sum(bool(_convolutions(unit)) for unit in getattr(network, name).children()) for name in BLOCKS]
    met = names == [*BLOCKS, "O"] and counts == [3] * len(BLOCKS)
    return f"{' '.join(names)}, {' '.join(map(str, counts))} convolutional units", met


def _rows_of_units(network: nn.Module) -> dict[str, list[list[Row]]]:
    rows = [row for row in receptive_field(network) if row.layer.startswith(BLOCKS)]
    return {
        block: [
            [row for row in rows if f"{row.layer}.".startswith(f"{block}.{name}.")]
            for name, _ in getattr(network, block).named_children()
        ]
        for block in BLOCKS
    }


def _shrinking(network: nn.Module) -> tuple[str, bool]:
    found, met = [], True
    for block, units in _rows_of_units(network).items():
        shrinks = [[row for row in unit if row.n_out != row.n_in] for unit in units]
        before, after = units[0][0].n_in, units[-1][-1].n_out
        how = []
        for row in shrinks[-1]:
            layer = network.get_submodule(row.layer)
            if not isinstance(layer, nn.Conv2d):
                met, how = False, [*how, type(layer).__name__]
                continue
            strided, dilated = row.s == 2, layer.dilation[0] > 1
            met &= strided or dilated
            how += ["stride 2"] * strided + [f"dilation {layer.dilation[0]}"] * dilated
        met &= not any(shrinks[:-1]) and (bool(shrinks[-1]) or block == BLOCKS[-1])
        found.append(f"{block} {before}>{after} {' '.join(how) or '(GAP follows)'}")
    return ", ".join(found), met


def _kind(graph: fx.GraphModule, node: fx.Node) -> str:
    """What a node does: the module's type, or the function's name."""
    if node.op == "call_module":
        return type(graph.get_submodule(node.target)).__name__
    return function_name(node)


def _max_pooling(network: nn.Module) -> tuple[str, bool]:
    graph = trace(network)
    kinds = [_kind(graph, node).lower().replace("_", "") for node in graph.graph.nodes]
    found = [kind for kind in kinds if "maxpool" in kind or kind == "amax"]
    return f"{len(found)} found", not found


def _view(network: nn.Module) -> tuple[str, bool]:
    size = receptive_field(network)[-1].r_out
    smallest = size if isinstance(size, int) else min(size)
    return str(size), smallest > RECEPTIVE_FIELD_LIMIT


def _used_convolutions(graph: fx.GraphModule) -> dict[fx.Node, nn.Conv2d]:
    layers = {
        node: graph.get_submodule(node.target) for node in graph.graph.nodes if node.op == "call_module"
    }
    return {node: layer for node, layer in layers.items() if isinstance(layer, nn.Conv2d)}


def _separable(network: nn.Module) -> tuple[str, bool]:
    """A depthwise convolution, and a 1x1 convolution across channels as the next to take its output.

    Only layers that work on each position alone may stand between: a classifier behind the pooling is none.
    """
    graph = trace(network)
    convolutions = _used_convolutions(graph)

    def passes(node: fx.Node) -> bool:
        if node.op == "call_module":
            return type(graph.get_submodule(node.target)).__module__ in POINTWISE_FAMILIES
        return function_name(node) in POINTWISE_FUNCTIONS

    def next_convolutions(node: fx.Node) -> list[nn.Conv2d]:
        found = []
        for user in node.users:
            found += [convolutions[user]] if user in convolutions else []
            found += next_convolutions(user) if passes(user) else []
        return found

    names = []
    for node, layer in convolutions.items():
        if not 1 < layer.groups == layer.in_channels or max(layer.kernel_size) == 1:
            continue
        if any(
            follower.kernel_size == (1, 1) and follower.groups == 1 for follower in next_convolutions(node)
        ):
            names.append(node.target)
    return ", ".join(names) or "none", bool(names)


def _dilated(network: nn.Module) -> tuple[str, bool]:
    found = [
        f"{node.target} by {max(layer.dilation)}"
        for node, layer in _used_convolutions(trace(network)).items()
        if any(d > 1 and k > 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
    ]
    return ", ".join(found) or "none", bool(found)


def _global_average(network: nn.Module) -> tuple[str, bool]:
    """An average over the whole map, behind which nothing has a height or a width any more."""
    graph = trace(network)
    found: list[str] = []
    for node in graph.graph.nodes:
        shape = node.meta.get("shape", ())
        before = [source.meta.get("shape", ()) for source in node.all_input_nodes[:1]]
        average = any(word in _kind(graph, node).lower() for word in ("avg", "mean"))
        if math.prod(shape[2:]) > 1:
            found = []
        elif average and before and math.prod(before[0][2:]) > 1:
            found.append(f"{node.name} over {'x'.join(map(str, before[0][2:]))}")
    return ", ".join(found) or "none", bool(found)


def _step(transform: A.Compose, kind: type) -> A.BasicTransform:
    """The one transform of this very class. Raises UserError if there is none, or more, or none is used."""
    if transform.p == 0:
        raise UserError("the transforms together have p=0")
    steps = [step for step in transform.transforms if type(step) is kind]
    if len(steps) != 1:
        raise UserError(f"{len(steps)} of them")
    return steps[0]


def _always(step: A.BasicTransform, image: np.ndarray) -> np.ndarray:
    """The image after the transform, whatever its probability."""
    probability, step.p = step.p, 1.0
    try:
        return step(image=image)["image"]
    finally:
        step.p = probability


def _noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def _flip(transform: A.Compose) -> tuple[str, bool]:
    step = _step(transform, A.HorizontalFlip)
    flips = np.array_equal(_always(step, _noise()), _noise()[:, ::-1])
    return f"p={step.p:g}", flips and step.p > 0


def _shift_scale_rotate(transform: A.Compose) -> tuple[str, bool]:
    step = _step(transform, A.ShiftScaleRotate)
    arguments = step.get_transform_init_args()
    limits = {
        name: arguments[name] for name in ("shift_limit_x", "shift_limit_y", "scale_limit", "rotate_limit")
    }
    moves = [abs(low - high) > 0 for low, high in limits.values()]
    shown = " ".join(f"{name}=({low:.4g}, {high:.4g})" for name, (low, high) in limits.items())
    return f"p={step.p:g} {shown}", all(moves) and step.p > 0


def _coarse_dropout(transform: A.Compose) -> tuple[str, bool]:
    """Looks at pixels: on an image without the fill's colour, the filled ones must be one 16x16 square."""
    step = _step(transform, A.CoarseDropout)
    mean = tuple(round(255 * channel) for channel in dataset.MEAN)
    sizes = set()
    for _ in range(50):
        changed = _always(step, np.full((32, 32, 3), 255, np.uint8))
        hole = (changed == mean).all(2)
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        side = (np.ptp(rows) + 1, np.ptp(columns) + 1) if hole.any() else (0, 0)
        whole = hole.sum() == side[0] * side[1] == (changed != 255).any(2).sum()
        sizes.add(f"{side[0]}x{side[1]}" if whole else "another shape or colour")
    kinds = [type(other) for other in transform.transforms]
    bytes_still = A.Normalize not in kinds[: kinds.index(A.CoarseDropout)]
    met = sizes == {f"{HOLE}x{HOLE}"} and step.fill_mask is None and step.p > 0 and bytes_still
    found = " or ".join(sorted(sizes)) + ("" if bytes_still else " behind Normalize")
    return f"p={step.p:g} fill={mean} fill_mask={step.fill_mask} hole {found}", met


def _accuracy(run: Run) -> tuple[str, bool]:
    accuracy, settings = run.history[-1].test_accuracy, run.settings
    what = "validation" if settings.validation else "test"
    met = accuracy >= ACCURACY_LIMIT and settings.dataset == "cifar10" and not settings.validation
    return f"{accuracy:.2f}% on {settings.dataset}'s {what} set, epoch {run.history[-1].epoch}", met


def _tested(run: Run) -> tuple[str, bool]:
    epochs = [row.epoch for row in run.history]
    tests = run.log.count("Test set: Average loss: ")
    met = epochs == list(range(1, run.settings.epochs + 1)) and tests == len(epochs)
    return f"{tests} tests in {run.settings.epochs} epochs", met


def _parameters(network: nn.Module) -> tuple[str, bool]:
    count = model.count_parameters(network)
    return f"{count:,}", count < PARAMETER_LIMIT


def _weights(network: nn.Module, run: Run) -> tuple[str, bool]:
    records.load_weights(run.folder, copy.deepcopy(network))
    return records.WEIGHTS, True


def _modular(network: nn.Module, notebook: Path) -> tuple[str, bool]:
    """Each part comes from a module of its own, and the notebook defines nothing."""
    homes = {
        "model": type(network).__module__,
        "dataset": dataset.train_transform.__module__,
        "utils": utils.train.__module__,
    }
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{notebook.name}: {error}") from error
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    without_magics = [re.sub(r"(?m)^([ \t]*)[%!].*", r"\1pass", source) for source in sources]
    trees = [ast.parse(source) for source in without_magics]
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    defined = sum(isinstance(node, kinds) for tree in trees for node in ast.walk(tree))
    met = defined == 0 and all(home == expected for expected, home in homes.items())
    return f"{', '.join(homes.values())}; {notebook.name} defines {defined} functions or classes", met


def print_audit(run: Run) -> int:
    """Audits the run's network, the live transforms and the run's records; 0 if all is met, else 1."""
    if "transform" in run.facts:
        raise UserError(f"{run.folder} was trained with another transform: audit a run of train_transform")
    network = utils.network_of(run)
    how = {"probability": run.settings.augmentation, "shift": run.settings.shift}
    checks = audit(network, dataset.train_transform(**how), run)
    print(format_checks(checks))
    return 0 if all(check.met for check in checks) else 1
