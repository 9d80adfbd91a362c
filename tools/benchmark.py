"""Measures what this repository gains over the plain way, both in turns, in one run on one machine.

    python -m tools.benchmark                     every row: ten minutes on two cores, five with a GPU
    python -m tools.benchmark --only data         one row
    python -m tools.benchmark --json FILE         for programs

Profile of a training step of `reference`, by torch.profiler on two cores of an AMD EPYC, in bfloat16, batches
of 128: convolutions backward 53%, convolutions forward 21%, BatchNorm 15%, ReLU 5%, the rest (casts, pooling,
loss, optimizer) 6%. Tried and left out: torch.compile, 1.16 times the images/s there, but 36 seconds for each
size of image, and a C++ compiler; ReLU in place, an allocator that keeps its pages, inference mode and larger
test batches made no difference.
"""

import argparse
import contextlib
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.data import DataLoader

import dataset
import utils
from dataset import default_workers, loaders
from s9 import files, records
from s9.analysis.summary import count_multiply_adds
from s9.data.device_loader import Loader
from s9.data.sources import Data
from s9.engine.hardware import DEVICES, Hardware, make_accelerator, precision_of
from s9.engine.optimizer import make_optimizer
from s9.engine.run import Progress
from s9.engine.step import GraphedStep
from s9.errors import CommandParser, RunError, UserError
from s9.settings import PRESETS
from tools.plain import BATCH_SIZE, Plain, plain_loaders

SEED_EPOCHS = 58
"""Epochs that the repository which `reference` comes from needed to reach 85% (its log)."""
GOAL = 85.0
ROUNDS = 5

Way = Callable[[], int]


class Row(NamedTuple):
    """One comparison. ratio: how many times better ours is, whether more or less is better."""

    name: str
    what: str
    plain: float
    ours: float
    ratio: float
    limit: float | None
    """The least ratio to reach."""


class Bench(NamedTuple):
    """What every measurement needs."""

    data: Data
    device: torch.device
    seconds: float
    """For each way in each round."""

    @property
    def on_gpu(self) -> bool:
        """Whether a CUDA device is measured."""
        return self.device.type == "cuda"

    @property
    def batches(self) -> int:
        """Batches of one piece of work: on a GPU many, because the loop looks at the first and the last."""
        return 40 if self.on_gpu else 4


def rates(ways: list[Way], seconds: float) -> list[float]:
    """Images/s of each way, the median over rounds in which the ways take turns.

    A way does a piece of work and returns the number of its images. The first piece of each is not timed.
    """
    for way in ways:
        way()
    measured: list[list[float]] = [[] for _ in ways]
    for _ in range(ROUNDS):
        for way, results in zip(ways, measured, strict=True):
            images, started = 0, time.perf_counter()
            while (passed := time.perf_counter() - started) < seconds or not images:
                images += way()
            results.append(images / passed)
    return [statistics.median(results) for results in measured]


class Ours:
    """A network and its training as utils.fit has them, with or without a CUDA graph."""

    def __init__(self, device: torch.device, name: str = "reference", graph: bool = True) -> None:
        settings, self.accelerator = PRESETS[name], make_accelerator(device.type)
        self.network = utils.new_network(name).to(device, memory_format=torch.channels_last)
        optimizer, self.scheduler = make_optimizer(self.network, settings, steps=1_000_000)
        self.prepared, self.optimizer = self.accelerator.prepare(nn.Sequential(self.network), optimizer)
        self.step = None
        if graph and device.type == "cuda":
            self.step = GraphedStep(self.network, settings.batch_size, precision_of(self.accelerator))

    def train(self, batches: list | Loader) -> int:
        """Trains on each batch; returns the number of images. Raises RunError if capturing failed."""
        parts = self.prepared, batches, self.optimizer, self.scheduler, self.accelerator
        progress = Progress()
        with contextlib.redirect_stdout(io.StringIO()) as output:
            utils.train(*parts, 0.1, progress, step=self.step)
        if self.step is not None and self.step.failed:
            raise RunError(f"the step was not captured: {output.getvalue()[-300:]}")
        return progress.images

    def test(self, batches: list | Loader) -> int:
        """Returns the number of images."""
        return len(utils.predict(self.network, batches)[1])


def first_images(data: Data, count: int) -> Data:
    """The data with at most so many training images."""
    return data._replace(train_images=data.train_images[:count], train_labels=data.train_labels[:count])


def ready_batches(bench: Bench, count: int, size: int = BATCH_SIZE) -> tuple[list, list]:
    """The same training batches twice, on the device: as plain has them, and as ours has them."""
    loader, _ = loaders(bench.data, size, workers=0, device=bench.device)
    ours = list(islice(loader, count))
    return [(images.contiguous(), labels) for images, labels in ours], ours


def measure_step(bench: Bench) -> list[Row]:
    """Training steps on batches that are on the device already, and their share of the device's peak."""
    rows = []
    for name, limit in (("reference", 3.0), ("best", None)):
        plain, ours = Plain(bench.device, name), Ours(bench.device, name)
        eager = Ours(bench.device, name, graph=False)
        plain_batches, batches = ready_batches(bench, bench.batches, PRESETS[name].batch_size)
        precision = precision_of(ours.accelerator)
        *steps, peak, our_peak = rates(
            [
                partial(plain.train, plain_batches),
                partial(ours.train, batches),
                matrix_product(bench, torch.float32),
                matrix_product(bench, getattr(torch, precision)),
            ],
            bench.seconds,
        )
        rows.append(faster("step", f"step of {name}, float32 and {precision}, images/s", *steps, limit=limit))
        # Forward once, backward twice that: towards the input and towards the weights.
        work = 3 * 2 * count_multiply_adds(plain.network)
        shares = [100 * steps[0] * work / peak, 100 * steps[1] * work / our_peak]
        rows.append(faster("step", f"step of {name}, % of the peak of a matrix product", *shares))
        if bench.on_gpu:
            steps = rates([partial(eager.train, batches), partial(ours.train, batches)], bench.seconds)
            rows.append(faster("step", f"step of {name} without and with a CUDA graph, images/s", *steps))
    return rows


def matrix_product(bench: Bench, dtype: torch.dtype) -> Way:
    """A way that multiplies two square matrices; its "images" are floating-point operations."""
    side = 8192 if bench.on_gpu else 2048
    left, right = (torch.randn(side, side, device=bench.device).to(dtype) for _ in range(2))

    def multiply() -> int:
        (left @ right)[0, 0].item()  # Waits for the device.
        return 2 * side**3

    return multiply


def measure_test(bench: Bench) -> list[Row]:
    """The test pass of `reference`, float32 on both sides, on batches that are on the device already."""
    plain, ours = Plain(bench.device), Ours(bench.device)
    plain_batches, our_batches = ready_batches(bench, bench.batches, 250)
    ways = [partial(plain.test, plain_batches), partial(ours.test, our_batches)]
    return [faster("test", "test pass of the reference, images/s", *rates(ways, bench.seconds))]


def measure_data(bench: Bench) -> list[Row]:
    """Augmented batches on the device, from one worker; beside a GPU also from as many as fit() starts."""
    rows, several = [], default_workers(bench.device)
    for workers, limit in ((1, 3.0), (several, None)) if several > 1 else ((1, 3.0),):
        data = first_images(bench.data, 12_800 * workers)
        plain, _ = plain_loaders(data, workers)
        ours, _ = loaders(data, BATCH_SIZE, workers=workers, device=bench.device)
        measured = rates(
            [partial(pass_over, loader, bench.device) for loader in (plain, ours)], bench.seconds
        )
        rows.append(faster("data", f"augmented batches, {workers} workers, images/s", *measured, limit=limit))
    return rows


def pass_over(loader: DataLoader | Loader, device: torch.device) -> int:
    """Takes each batch to the device; returns the number of images."""
    return sum(len(images.to(device)) for images, _ in loader)


def measure_epoch(bench: Bench) -> list[Row]:
    """An epoch of the notebook's network, loader and training together, on 32-pixel images."""
    workers = default_workers(bench.device)
    data = first_images(bench.data, 25_600 if bench.on_gpu else 1_280)
    plain, ours = Plain(bench.device, "best"), Ours(bench.device, "best")
    plain_loader, _ = plain_loaders(data, workers)
    loader, _ = loaders(data, PRESETS["best"].batch_size, workers=workers, device=bench.device)
    ways = [partial(plain.train, plain_loader), partial(ours.train, loader)]
    return [faster("epoch", "epoch of best with its loader, images/s", *rates(ways, bench.seconds))]


def measure_fast(bench: Bench) -> list[Row]:
    """Seconds to 85%: the plain recipe for the epochs that the seed needed, and `--preset fast`."""
    before = plain_epoch_seconds(bench)
    settings = PRESETS["fast"]
    with tempfile.TemporaryDirectory() as folder:
        here = Hardware(bench.device.type)
        history = utils.fit(settings, bench.data, Path(folder), hardware=here).history
    reached = next((row.epoch for row in history if row.test_accuracy >= GOAL), None)
    seconds = sum(row.seconds for row in history[:reached]) if reached else float("inf")
    # Before and after ours: a machine's speed drifts within minutes.
    plain = SEED_EPOCHS * statistics.mean([before, plain_epoch_seconds(bench)])
    what = f"seconds to {GOAL:g}%: {SEED_EPOCHS} plain epochs, {reached or 'never in any'} of --preset fast"
    return [smaller("fast", what, plain, seconds, 40.0)]


def plain_epoch_seconds(bench: Bench) -> float:
    """An epoch of the plain recipe, training and test, from its first tenth."""
    plain = Plain(bench.device)
    workers = default_workers(bench.device)
    total = 0.0
    for loader, way in zip(plain_loaders(bench.data, workers), (plain.train, plain.test), strict=True):
        part = len(loader) // 10
        batches = iter(loader)
        way(list(islice(batches, 3)))
        started = time.perf_counter()
        way(islice(batches, part))
        total += (time.perf_counter() - started) * len(loader) / part
    return total


def faster(name: str, what: str, plain: float, ours: float, limit: float | None = None) -> Row:
    """A row whose numbers are better the larger they are."""
    return Row(name, what, plain, ours, ours / plain, limit)


def smaller(name: str, what: str, plain: float, ours: float, limit: float | None = None) -> Row:
    """A row whose numbers are better the smaller they are."""
    return Row(name, what, plain, ours, plain / ours, limit)


MEASUREMENTS: dict[str, Callable[[Bench], list[Row]]] = {
    "step": measure_step,
    "test": measure_test,
    "data": measure_data,
    "epoch": measure_epoch,
    "fast": measure_fast,
}
NAMES = tuple(MEASUREMENTS)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command; ends with exit code 2 after one line about a user's mistake."""
    parser = CommandParser(
        prog="python -m tools.benchmark", description="Measure what this repo gains over the plain way."
    )
    parser.add_argument("--only", metavar="NAME", help=f"one of {', '.join(NAMES)}; default: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there too")
    parser.add_argument("--data-dir", metavar="DIR", help="folder that holds CIFAR-10")
    parser.add_argument("--device", default="auto", help=f"one of {', '.join(DEVICES)} (%(default)s)")
    parser.add_argument(
        "--seconds", type=float, metavar="X", help="for each side in each round (2 on a CPU, else 0.5)"
    )
    options = parser.parse_args(arguments)
    try:
        print(format_report(measure(options)))
    except UserError as error:
        parser.error(str(error))


def measure(options: argparse.Namespace) -> dict:
    """The report that the options ask for, written to --json too. Raises UserError for wrong options."""
    if options.only not in (None, *NAMES):
        raise UserError(f"unknown row {options.only!r}: choose one of {', '.join(NAMES)}")
    if options.seconds is not None and not 0 < options.seconds <= 60:
        raise UserError(f"--seconds must be above 0 and at most 60, got {options.seconds}")
    if options.json is not None:
        files.ensure_writable(options.json, "bench.json")
    accelerator = make_accelerator(options.device)
    data = dataset.load("cifar10", options.data_dir)
    seconds = options.seconds or (2.0 if accelerator.device.type == "cpu" else 0.5)
    bench = Bench(data, accelerator.device, seconds)
    precision = precision_of(accelerator)
    report = records.collect_facts(data.facts(), bench.device, precision, workers=0)
    report["rows"] = []
    for name in [options.only] if options.only else NAMES:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        report["rows"] += [row._asdict() for row in MEASUREMENTS[name](bench)]
    if options.json is not None:
        files.replace(options.json, (json.dumps(report, indent=2) + "\n").encode())
    return report


def read_report(path: Path) -> dict:
    """What --json wrote. Raises UserError if it is missing or is none."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        format_report(report)
        return report
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(
            f"{path} is not a report of the benchmark ({error}): write it anew with --json"
        ) from error


def format_report(report: dict) -> str:
    """A report as one Markdown table, the machine, versions and date above it."""
    versions = ", ".join(f"{package} {version}" for package, version in report["versions"].items())
    lines = [
        f"{report['device']}, {report['started']}, Python {report['python']}, {versions}",
        "",
        "| row | what | plain | ours | ratio | at least |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in report["rows"]:
        row = Row(**row)
        limit = "" if row.limit is None else f"{row.limit:g}"
        numbers = (f"{number:,.0f}" for number in (row.plain, row.ours))
        cells = (row.name, row.what, *numbers, f"**{row.ratio:.3g}**", limit)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
