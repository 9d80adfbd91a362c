"""Measures what this repository gains over a plain recipe, both in turns, in one run on one machine.

python -m tools.benchmark                     every row: ten minutes on two cores, five with a GPU
python -m tools.benchmark --only data         one row
python -m tools.benchmark --json FILE         for programs
"""

import contextlib
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

import dataset
import utils
from dataset import default_workers, loaders
from s9 import files, records
from s9.analysis.summary import count_multiply_adds
from s9.data.device_loader import Loader
from s9.data.sources import Data
from s9.engine.hardware import DEVICES, Hardware, make_accelerator, precision_of
from s9.engine.run import Progress, RunState
from s9.errors import CommandParser, RunError, UserError, printable, run_command
from s9.records import Run
from s9.settings import PRESETS
from tools.audit import ACCURACY_LIMIT
from tools.claims import first_passing_epoch, table, versions
from tools.plain import BATCH_SIZE, Plain, plain_loaders

PLAIN_EPOCHS, REFERENCE_EPOCHS = 35, 26
"""Epochs until results/plain.json and results/reference reach 85%."""
ROUNDS = 5

Way = Callable[[], int]
"""Does a piece of work and returns the number of its images."""


class Row(NamedTuple):
    """One comparison. ratio: how many times better ours is."""

    name: str
    what: str
    plain: float
    ours: float
    ratio: float


class Bench(NamedTuple):
    """What every measurement needs. seconds: for each way in each round."""

    data: Data
    device: torch.device
    seconds: float

    def compare(self, name: str, what: str, plain: Way, ours: Way) -> Row:
        """A row of images/s."""
        before, after = rates([plain, ours], self.seconds)
        return Row(name, f"{what}, images/s", before, after, after / before)


def rates(ways: list[Way], seconds: float) -> list[float]:
    """Images/s of each way, the median of rounds in which they take turns; the first call is not timed."""
    for way in ways:
        way()
    rounds = [[rate(way, seconds) for way in ways] for _ in range(ROUNDS)]
    return [statistics.median(results) for results in zip(*rounds, strict=True)]


def rate(way: Way, seconds: float) -> float:
    """Images/s of calls that take this time together, or of a single longer one."""
    images, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds or not images:
        images += way()
    return images / passed


class Ours:
    """A network and its training as utils.fit has them, with or without a CUDA graph."""

    def __init__(self, bench: Bench, name: str = "reference", graph: bool = True, workers: int = 0) -> None:
        run = Run(Path(), replace(PRESETS[name], epochs=100_000), {}, [], "")  # Its schedule does not end.
        both = loaders(bench.data, run.settings.batch_size, workers=workers, device=bench.device)
        accelerator = make_accelerator(bench.device.type)
        self.state = RunState(run, utils.new_network(name), both, accelerator, graph)

    def train(self, batches: list | Loader) -> int:
        """Takes a step a batch; returns the number of images. Raises RunError if capturing failed."""
        state, progress = self.state, Progress()
        parts = state.prepared, batches, state.optimizer, state.scheduler, state.accelerator
        with contextlib.redirect_stdout(io.StringIO()) as output:
            utils.train(*parts, 0.1, progress, step=state.step)
        if state.step is not None and state.step.failed:
            raise RunError(f"the step was not captured: {output.getvalue()[-300:]}")
        return progress.images

    def test(self, batches: list | Loader) -> int:
        """Returns the number of images."""
        return len(utils.predict(self.state.network, batches)[1])


def first_images(data: Data, count: int) -> Data:
    """The data with at most so many training images, and a fifth as many test images."""
    tests = count // 5
    return data._replace(
        train_images=data.train_images[:count],
        train_labels=data.train_labels[:count],
        test_images=data.test_images[:tests],
        test_labels=data.test_labels[:tests],
    )


def ready_batches(bench: Bench, loader: Loader) -> tuple[list, list]:
    """A loader's first batches twice, on the device: as plain has them, and as ours has them."""
    ours = list(islice(loader, 40 if bench.device.type == "cuda" else 4))
    return [(images.contiguous(), labels) for images, labels in ours], ours


def measure_step(bench: Bench) -> Iterator[Row]:
    """Training steps on batches that are on the device already, and their share of the device's peak."""
    for name in ("reference", "best"):
        plain, ours = Plain(bench.device, name), Ours(bench, name)
        plain_batches, batches = ready_batches(bench, ours.state.train_loader)
        precision, our_way = precision_of(ours.state.accelerator), partial(ours.train, batches)
        matrices = torch.randn(2, *[8192 if bench.device.type == "cuda" else 2048] * 2, device=bench.device)
        ways = [
            partial(plain.train, plain_batches),
            our_way,
            partial(multiply, matrices),
            partial(multiply, matrices.to(getattr(torch, precision))),
        ]
        before, after, peak, our_peak = rates(ways, bench.seconds)
        what = f"step of {name}, float32 and {precision}, images/s"
        yield Row("step", what, before, after, after / before)
        # Forward once, backward twice that: towards the input and towards the weights.
        work = 3 * 2 * count_multiply_adds(plain.network)
        share, our_share = 100 * before * work / peak, 100 * after * work / our_peak
        what = f"step of {name}, % of the peak of a matrix product"
        yield Row("step", what, share, our_share, our_share / share)
        if bench.device.type == "cuda":
            eager = partial(Ours(bench, name, graph=False).train, batches)
            yield bench.compare("step", f"step of {name} without and with a CUDA graph", eager, our_way)


def multiply(matrices: Tensor) -> int:
    """Multiplies two square matrices (2, side, side); returns the number of floating-point operations."""
    left, right = matrices
    (left @ right)[0, 0].item()  # Waits for the device.
    return 2 * len(left) ** 3


def measure_test(bench: Bench) -> Iterator[Row]:
    """The test pass of `reference`, float32 on both sides, on batches that are on the device already."""
    ours = Ours(bench)
    plain_batches, batches = ready_batches(bench, ours.state.test_loader)
    ways = partial(Plain(bench.device).test, plain_batches), partial(ours.test, batches)
    yield bench.compare("test", "test pass of the reference", *ways)


def measure_data(bench: Bench) -> Iterator[Row]:
    """Augmented batches on the device, from one worker; beside a GPU also from as many as fit() starts."""

    def take(loader: DataLoader | Loader) -> int:
        return sum(len(images.to(bench.device)) for images, _ in loader)

    for workers in sorted({1, max(1, default_workers(bench.device))}):
        data = first_images(bench.data, 12_800 * workers)
        plain, _ = plain_loaders(data, workers)
        ours, _ = loaders(data, BATCH_SIZE, workers=workers, device=bench.device)
        what = f"augmented batches, workers: {workers}"
        yield bench.compare("data", what, partial(take, plain), partial(take, ours))


def measure_epoch(bench: Bench) -> Iterator[Row]:
    """An epoch of the notebook's network, loader and training together, on 32-pixel images."""
    workers = default_workers(bench.device)
    part = bench._replace(data=first_images(bench.data, 25_600 if bench.device.type == "cuda" else 1_280))
    plain_loader, _ = plain_loaders(part.data, workers)
    ours = Ours(part, "best", workers=workers)
    ways = (
        partial(Plain(bench.device, "best").train, plain_loader),
        partial(ours.train, ours.state.train_loader),
    )
    yield bench.compare("epoch", "epoch of best with its loader", *ways)


def measure_time_to_limit(bench: Bench) -> Iterator[Row]:
    """Seconds to 85%: the plain recipe, ours for the same network, and `--preset fast`."""
    workers = default_workers(bench.device)
    part = bench._replace(data=first_images(bench.data, len(bench.data.train_labels) // 10))
    plain, ours = Plain(bench.device), Ours(part, workers=workers)
    plain_way = partial(epoch_seconds, plain, *plain_loaders(part.data, workers))
    our_way = partial(epoch_seconds, ours, ours.state.train_loader, ours.state.test_loader)
    # Before and after ours: a machine's speed drifts within minutes.
    before = plain_way(), our_way()
    with tempfile.TemporaryDirectory() as folder:
        here = Hardware(bench.device.type)
        history = utils.fit(PRESETS["fast"], bench.data, Path(folder), hardware=here).history
    reached = first_passing_epoch(history)
    fast = sum(row.seconds for row in history[:reached]) if reached else float("inf")
    plain_time = PLAIN_EPOCHS * statistics.mean([before[0], plain_way()])
    reference = REFERENCE_EPOCHS * statistics.mean([before[1], our_way()])
    what = f"seconds to {ACCURACY_LIMIT:g}%: {PLAIN_EPOCHS} plain epochs"
    for name, count, seconds in (("reference", REFERENCE_EPOCHS, reference), ("fast", reached, fast)):
        ours_text = f"{what}, {count or 'never in any'} of --preset {name}"
        yield Row("time", ours_text, plain_time, seconds, plain_time / seconds)


def epoch_seconds(trainer: Plain | Ours, train_loader: DataLoader, test_loader: DataLoader) -> float:
    """Seconds of an epoch and its test: ten times the second pass over a tenth of the data."""
    for _ in range(2):
        started = time.perf_counter()
        trainer.train(train_loader)
        trainer.test(test_loader)
    return 10 * (time.perf_counter() - started)


MEASUREMENTS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "step": measure_step,
    "test": measure_test,
    "data": measure_data,
    "epoch": measure_epoch,
    "time": measure_time_to_limit,
}


def main(arguments: list[str] | None = None) -> None:
    """Runs the command; ends with exit code 2 after one line about a user's mistake."""
    parser = CommandParser(
        prog="python -m tools.benchmark", description="Measure what this repo gains over the plain way."
    )
    parser.add_argument("--only", choices=MEASUREMENTS, help="measure this row alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there too")
    parser.add_argument("--data-dir", metavar="DIR", help="folder that holds CIFAR-10")
    parser.add_argument("--device", default="auto", help=f"one of {', '.join(DEVICES)} (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        if options.json is not None:
            files.ensure_writable(options.json, "bench.json")
        accelerator = make_accelerator(options.device)
        data, device = dataset.load("cifar10", options.data_dir), accelerator.device
    except UserError as error:
        parser.error(str(error))
    bench = Bench(data, device, seconds=2.0 if device.type == "cpu" else 0.5)
    report = records.collect_facts(data.facts(), device, precision_of(accelerator), workers=0)
    report["rows"] = []
    for name in [options.only] if options.only else MEASUREMENTS:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        try:
            report["rows"] += [row._asdict() for row in MEASUREMENTS[name](bench)]
        except RunError as error:
            parser.exit(1, f"{parser.prog}: {name}: {printable(error)}\n")
    if options.json is not None:
        files.replace(options.json, (json.dumps(report, indent=2) + "\n").encode())
    print(format_report(report))


def read_report(path: Path) -> str:
    """The table of a report that --json wrote. Raises UserError if it is missing or is none."""
    with records.reading(path, "is not a report of the benchmark", "write it anew with --json"):
        return format_report(json.loads(path.read_text(encoding="utf-8")))


def format_report(report: dict) -> str:
    """A report as one Markdown table, the machine, versions and date above it."""
    rows = [
        {
            "row": row.name,
            "what": row.what,
            "plain": f"{row.plain:,.0f}",
            "ours": f"{row.ours:,.0f}",
            "ratio": f"**{row.ratio:.3g}**",
        }
        for row in (Row(**row) for row in report["rows"])
    ]
    machine = f"{report['device']}, threads: {report['threads']}, {report['started']}, {versions(report)}"
    return f"{machine}\n\n{table(rows, ('plain', 'ours', 'ratio'))}"


if __name__ == "__main__":
    run_command(main)
