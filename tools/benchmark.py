"""What this repo gains over the plain way, both measured in one run on one machine.

    python -m tools.benchmark                     every row, in less than ten minutes on two cores
    python -m tools.benchmark --only data         one row
    python -m tools.benchmark --json FILE         for programs

Where a training step of the reference network goes, by torch's profiler on two cores of an AMD EPYC, in
bfloat16 and batches of 128: convolutions backward 53%, convolutions forward 21%, BatchNorm 15%, ReLU 5%, the
rest (casts, pooling, loss, optimizer) 6%. Not taken: torch.compile, 1.16 times the images/s there after 36
seconds, for every size of image again, and only with a C++ compiler; a ReLU in place, a memory allocator that
keeps its pages, PyTorch's inference mode and larger test batches, nothing that could be told from noise.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from torch import nn
from torch.utils.data import DataLoader

import dataset
import utils
from dataset import loaders
from s9 import files, records
from s9.analysis.summary import count_multiply_adds
from s9.data.device_loader import Loader
from s9.data.sources import Data
from s9.engine.hardware import DEVICES, make_accelerator, precision_of
from s9.engine.optimizer import make_optimizer
from s9.errors import CommandParser, UserError
from s9.settings import PRESETS, Settings
from tools.plain import BATCH_SIZE, Bare, Plain, plain_loaders

SEED_EPOCHS = 58
"""What the repository whose network this is needed to reach 85% (its log)."""
GOAL = 85.0
ROUNDS = 5
MEMORY_BATCHES = 10
"""In each of the epochs that memory is measured over."""
PLAIN_WORKERS = 0
"""Of the plain recipe where the CPU trains: the faster choice there, for it as for ours."""

Way = Callable[[], int]


class Row(NamedTuple):
    """One comparison. The ratio says how many times better ours is, whichever way better lies."""

    name: str
    what: str
    plain: float
    ours: float
    ratio: float
    limit: float | None
    """The ratio that must be reached."""


class Bench(NamedTuple):
    """What every measurement needs."""

    data: Data
    data_dir: str | None
    device: torch.device
    seconds: float
    """For each way in each round."""


def rates(ways: list[Way], seconds: float) -> list[float]:
    """Images/s of each way, the median over rounds in which the ways take turns.

    A way does a piece of work and says how many images it was. The first piece of each is not counted.
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
    """The reference network and its training as utils.fit has them, or without Accelerate."""

    def __init__(self, device: torch.device, bare: bool = False) -> None:
        settings, accelerator = Settings(), make_accelerator(device.type)
        self.accelerator = Bare(device, precision_of(accelerator)) if bare else accelerator
        self.network = utils.new_network(settings.model).to(device, memory_format=torch.channels_last)
        optimizer, self.scheduler = make_optimizer(self.network, settings, steps=1_000_000)
        self.prepared, self.optimizer = self.accelerator.prepare(nn.Sequential(self.network), optimizer)

    def steps(self, batches: list | Loader) -> None:
        """Takes a step a batch."""
        with contextlib.redirect_stdout(io.StringIO()):
            utils.train(self.prepared, batches, self.optimizer, self.scheduler, self.accelerator, 0.1)

    def train(self, batches: list) -> int:
        """Takes a step a batch; returns the number of images."""
        self.steps(batches)
        return sum(len(labels) for _, labels in batches)

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
    """Training steps of the reference network on batches that are there, and their share of the peak."""
    plain, ours = Plain(bench.device), Ours(bench.device)
    plain_batches, our_batches = ready_batches(bench, 4)
    names = "float32", precision_of(ours.accelerator)
    ways = [
        lambda: plain.train(plain_batches),
        lambda: ours.train(our_batches),
        *(matrix_product(bench.device, getattr(torch, name)) for name in names),
    ]
    *steps, peak, our_peak = rates(ways, bench.seconds)
    # Forward once, backward twice that: towards the input and towards the weights.
    work = 3 * 2 * count_multiply_adds(plain.network)
    shares = [100 * steps[0] * work / peak, 100 * steps[1] * work / our_peak]
    return [
        faster(
            "step", f"training step of the reference, {names[0]} and {names[1]}, images/s", *steps, limit=3.0
        ),
        faster("step", "share of the peak of a matrix product in the same precision, %", *shares),
    ]


def matrix_product(device: torch.device, dtype: torch.dtype, side: int = 2048) -> Way:
    """A way that multiplies two square matrices; its "images" are floating-point operations."""
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))

    def multiply() -> int:
        (left @ right)[0, 0].item()  # Waits for the device.
        return 2 * side**3

    return multiply


def measure_accelerate(bench: Bench) -> list[Row]:
    """What Accelerate costs a single process: the step without it and with it."""
    batches = ready_batches(bench, 4)[1]
    bare, ours = Ours(bench.device, bare=True), Ours(bench.device)
    steps = rates([lambda: bare.train(batches), lambda: ours.train(batches)], bench.seconds)
    return [faster("accelerate", "training step without and with Accelerate, images/s", *steps, limit=0.98)]


def measure_test(bench: Bench) -> list[Row]:
    """The test pass of the reference network, float32 on both sides, on batches that are there."""
    plain, ours = Plain(bench.device), Ours(bench.device)
    plain_batches, our_batches = ready_batches(bench, 4, 250)
    ways = [lambda: plain.test(plain_batches), lambda: ours.test(our_batches)]
    return [faster("test", "test pass of the reference, images/s", *rates(ways, bench.seconds))]


def measure_data(bench: Bench) -> list[Row]:
    """Augmented batches on the device, from one worker."""
    data = first_images(bench.data, 12_800)
    plain, _ = plain_loaders(data, workers=1)
    ours, _ = loaders(data, BATCH_SIZE, workers=1, device=bench.device)

    def pass_over(loader: DataLoader | Loader) -> int:
        return sum(len(images.to(bench.device)) for images, _ in loader)

    measured = rates([lambda: pass_over(plain), lambda: pass_over(ours)], bench.seconds)
    return [faster("data", "augmented batches from one worker, images/s", *measured, limit=3.0)]


def measure_memory(bench: Bench) -> list[Row]:
    """A fresh process that trains with one worker: its peak, the worker's own, the growth over epochs."""
    # Not a multiprocessing.Pool: its processes may have no children, and the loader's worker is one.
    context, usual = multiprocessing.get_context("spawn"), multiprocessing.get_start_method()
    used = []
    for side in ("plain", "ours"):
        with ProcessPoolExecutor(1, context) as pool:
            where = bench.data.name, bench.data_dir, str(bench.device)
            used.append(pool.submit(run_memory, usual, side, *where, MEMORY_BATCHES).result())
    plain, ours = used
    return [
        smaller("memory", "peak of a training run, MiB", plain["peak"], ours["peak"]),
        smaller("memory", "held by its worker alone, MiB", plain["worker"], ours["worker"]),
        smaller("memory", "after the fourth epoch, % of after the first", plain["growth"], ours["growth"]),
    ]


def run_memory(
    method: str, side: str, name: str, data_dir: str | None, device: str, batches: int
) -> dict[str, float]:
    """Trains for four epochs of so many batches in this process; MiB."""
    # A spawned process would spawn its own; the loader's worker is to start as it does in a training run.
    multiprocessing.set_start_method(method, force=True)
    data = dataset.load(name, data_dir)
    device = torch.device(device)
    if side == "plain":
        trainer, (loader, _) = Plain(device), plain_loaders(data, workers=1)
    else:
        trainer, (loader, _) = Ours(device), loaders(data, BATCH_SIZE, workers=1, device=device)
    process = psutil.Process()
    after = []
    for _ in range(4):
        for batch in islice(loader, batches):
            trainer.train([batch])
        after.append(process.memory_info().rss)
    worker = max(process.children(), key=lambda child: child.memory_full_info().uss)
    return {
        "peak": max(after) / 2**20,
        "worker": worker.memory_full_info().uss / 2**20,
        "growth": 100 * after[-1] / after[0],
    }


def measure_fast(bench: Bench) -> list[Row]:
    """Seconds to 85%: the plain recipe for the epochs that the seed needed, and `--preset fast`."""
    before = plain_epoch_seconds(bench)
    settings = PRESETS["fast"]
    with tempfile.TemporaryDirectory() as folder:
        history = utils.fit(settings, bench.data, Path(folder), device=bench.device.type).history
    reached = next((row.epoch for row in history if row.test_accuracy >= GOAL), None)
    seconds = sum(row.seconds for row in history[:reached]) if reached else float("inf")
    # Before and after ours: a machine's speed drifts within minutes.
    plain = SEED_EPOCHS * statistics.mean([before, plain_epoch_seconds(bench)])
    what = f"seconds to {GOAL:g}%: {SEED_EPOCHS} plain epochs, {reached or 'never in any'} of --preset fast"
    return [smaller("fast", what, plain, seconds, 40.0)]


def plain_epoch_seconds(bench: Bench) -> float:
    """An epoch of the plain recipe, training and test, from its first tenth."""
    plain = Plain(bench.device)
    workers = PLAIN_WORKERS if bench.device.type == "cpu" else 2
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
    "accelerate": measure_accelerate,
    "test": measure_test,
    "data": measure_data,
    "memory": measure_memory,
    "fast": measure_fast,
}
NAMES = (*MEASUREMENTS, "scaling")


def measure_scaling(bench: Bench) -> dict[str, dict[int, float]]:
    """Images/s against one thing at a time, all else as fit has it: what is varied -> {value: images/s}."""
    cores, threads = psutil.cpu_count(logical=False) or 1, torch.get_num_threads()
    ours = Ours(bench.device)
    half = bench.seconds / 2

    def step(size: int) -> Way:
        batches = ready_batches(bench, max(512 // size, 1), size)[1]
        return lambda: ours.train(batches)

    def epoch(workers: int) -> Way:
        data = first_images(bench.data, 2_560)
        loader, _ = loaders(data, BATCH_SIZE, workers=workers, device=bench.device)

        def way() -> int:
            ours.steps(loader)
            return len(data.train_images)

        return way

    sizes, workers = (16, 32, 64, 128, 256, 512), range(cores + 1)
    points = {
        "batch size": dict(zip(sizes, rates([step(size) for size in sizes], half), strict=True)),
        "workers": dict(zip(workers, rates([epoch(number) for number in workers], half), strict=True)),
        "threads": {},
    }
    for number in range(1, threads + 1):
        torch.set_num_threads(number)
        points["threads"][number] = rates([step(BATCH_SIZE)], half)[0]
    return points


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
        "--seconds", type=float, default=2.0, metavar="X", help="for each side in each round (%(default)s)"
    )
    options = parser.parse_args(arguments)
    try:
        print(format_report(measure(options)))
    except UserError as error:
        parser.error(str(error))


def measure(options: argparse.Namespace) -> dict:
    """The report that the options ask for, written to --json too; UserError for what makes no sense."""
    if options.only not in (None, *NAMES):
        raise UserError(f"unknown row {options.only!r}: choose one of {', '.join(NAMES)}")
    if not 0 < options.seconds <= 60:
        raise UserError(f"--seconds {options.seconds} makes no sense: give more than 0, up to 60")
    if options.json is not None:
        files.ensure_writable(options.json, "bench.json")
    accelerator = make_accelerator(options.device)
    data = dataset.load("cifar10", options.data_dir)
    bench = Bench(data, options.data_dir, accelerator.device, options.seconds)
    precision = precision_of(accelerator)
    report = records.collect_facts(data.facts(), bench.device, precision, workers=0)
    report |= {"rows": [], "scaling": {}}
    for name in [options.only] if options.only else NAMES:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        if name == "scaling":
            report["scaling"] = measure_scaling(bench)
        else:
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
        raise UserError(f"{path} is no report of bench.py ({error}): run bench.py --json {path}") from error


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
    for varied, points in report["scaling"].items():
        rates = ", ".join(f"{value}: {rate:,.0f}" for value, rate in points.items())
        lines += ["", f"Training of the reference, images/s by {varied}: {rates}"]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
