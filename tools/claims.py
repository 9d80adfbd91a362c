"""What this repository claims of its networks: their runs, seed by seed, and the tables made of them.

results/<network>/          a run folder (see records.py): the network's first seed
results/<network>/seed-1/   a run of the same settings with seed 1; seed-2 and so on likewise
results/notebook/, short/   shorter runs of one of them, as long as the notebook's without and with a GPU
results/validation.csv      what was tried on the validation set (Trial)
results/public.csv          what others have reached (Mark)
"""

import csv
import statistics
import typing
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import utils
from model import NETWORKS, count_parameters
from s9 import records
from s9.analysis.receptive_field import receptive_field
from s9.analysis.summary import count_multiply_adds
from s9.engine.progress import in_words
from s9.errors import UserError
from s9.records import Run
from s9.settings import PRESETS
from tools.audit import ACCURACY_LIMIT, PARAMETER_LIMIT


class Trial(NamedTuple):
    """A row of results/validation.csv."""

    tried: str
    thousand_parameters: int
    million_multiply_adds: float | None
    epochs: int
    validation_accuracy: float
    seconds: int


class Mark(NamedTuple):
    """A row of results/public.csv: what others have reached, as they state it."""

    name: str
    parameters: int
    accuracy: float
    epochs: int | None
    source: str


Row = TypeVar("Row", Trial, Mark)


def read_seeds(folder: Path) -> list[Run]:
    """A network's runs: the one in `folder`, then those in its seed-1, seed-2 and so on.

    Raises UserError if nothing can be claimed of one: it is no whole run on CIFAR-10's test set, its weights
    are another network's, or it differs from the first in more than the seed.
    """
    others = sorted(folder.glob("seed-*"), key=lambda path: (len(path.name), path.name))
    first, *more = runs = [records.read(path) for path in (folder, *others)]
    for run in runs:
        _check_whole(run)
    for run in more:
        settings = asdict(run.settings)
        unlike = [
            f"{key} {value} there, {settings[key]} here"
            for key, value in asdict(first.settings).items()
            if settings[key] != value and key != "seed"
        ]
        if unlike:
            raise UserError(
                f"{run.folder} has other settings than {folder} ({'; '.join(unlike)}): "
                "seeds of one network may differ in nothing else"
            )
        if run.folder.name != f"seed-{run.settings.seed}" or run.settings.seed == first.settings.seed:
            raise UserError(
                f"{run.folder} holds seed {run.settings.seed}, {folder} seed {first.settings.seed}: "
                "give each seed once, in the folder of its number"
            )
    return runs


def _check_whole(run: Run) -> None:
    settings = run.settings
    if settings.dataset != "cifar10" or settings.validation:
        raise UserError(f"{run.folder} is no run on CIFAR-10's test set: the README shows nothing else")
    if [row.epoch for row in run.history] != list(range(1, settings.epochs + 1)):
        raise UserError(
            f"{run.folder} holds {len(run.history)} of {settings.epochs} epochs: train on with --resume"
        )
    try:
        _images(run)
        _commands([run])
        for tell in (_device, _versions, _commit):
            _told([run], tell)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        path, reason = run.folder / records.SETTINGS, f"{type(error).__name__}: {error}"
        raise UserError(
            f"{path} does not say what a run's record must ({reason}): {records.DAMAGED}"
        ) from error
    records.load_weights(run.folder, utils.new_network(settings.model))


def read_networks(results: Path) -> dict[str, list[Run]]:
    """The runs of every network that has a folder of its name in `results`, in the order of model.NETWORKS.

    Raises UserError as read_seeds does, and if a folder holds another network than its name says.
    """
    networks = {name: read_seeds(results / name) for name in NETWORKS if (results / name).is_dir()}
    for name, (run, *_) in networks.items():
        if run.settings.model != name:
            raise UserError(f"{run.folder} holds a run of {run.settings.model}: name the folder after it")
    return networks


def accuracy(runs: Sequence[Run]) -> tuple[float, float | None]:
    """Mean of the last epochs' test accuracies and their sample standard deviation (None of one run)."""
    values = [run.history[-1].test_accuracy for run in runs]
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None


def _accuracy_text(runs: Sequence[Run]) -> str:
    mean, spread = accuracy(runs)
    return f"{mean:.2f}%" if spread is None else f"{mean:.2f} ± {spread:.2f}%"


def _time(runs: Sequence[Run]) -> str:
    """Mean over the seeds, over those on the same hardware where it was not the same for all."""
    seconds: dict[str, list[float]] = {}
    hardware = [_told([run], _device) for run in runs]
    for run, where in zip(runs, hardware, strict=True):
        seconds.setdefault(where, []).append(sum(row.seconds for row in run.history))
    return _seed_by_seed(runs, [in_words(statistics.mean(seconds[where])) for where in hardware])


def _seed_by_seed(runs: Sequence[Run], texts: Sequence[str]) -> str:
    """A text for each run, once for all seeds that have the same one."""
    seeds: dict[str, list[str]] = {}
    for run, text in zip(runs, texts, strict=True):
        seeds.setdefault(text, []).append(str(run.settings.seed))
    if len(seeds) == 1:
        return next(iter(seeds))
    return "; ".join(f"seed {', '.join(numbers)}: {text}" for text, numbers in seeds.items())


def _told(runs: Sequence[Run], tell: Callable[[dict], list[str]]) -> str:
    """What `tell` says of the runs' facts, once for all seeds of which it says the same.

    A run that was continued elsewhere has in "resumed" what changed, and from which epoch on (see
    records.continued); of that, what was not said just before is added in brackets.
    """
    texts = []
    for run in runs:
        facts, said, later = run.facts, tell(run.facts), []
        text = ", ".join(said)
        for part in run.facts.get("resumed", []):
            facts = facts | part
            now = tell(facts)
            if news := [item for item in now if item not in said]:
                later.append(f"from epoch {part['epoch']} on: {', '.join(news)}")
            said = now
        texts.append(text + (f" ({'; '.join(later)})" if later else ""))
    return _seed_by_seed(runs, texts)


def _images(run: Run) -> str:
    return f"{run.facts['data']['test']:,}"


def _device(facts: dict) -> list[str]:
    return [f"{facts['device']}, {facts['precision']}"]


def _versions(facts: dict) -> list[str]:
    packages = [f"{package} {version}" for package, version in facts["versions"].items()]
    return [f"Python {facts['python']}", *packages]


def _commit(facts: dict) -> list[str]:
    return [f"commit `{facts['commit']}`"]


def command_line(run: Run) -> str:
    """The command that repeats a run; on a CPU its sums come out the same with as many threads alone."""
    settings = asdict(run.settings)
    name = next((name for name, preset in PRESETS.items() if preset.model == settings["model"]), "reference")
    preset = asdict(PRESETS[name])
    always = ("dataset", "epochs", "seed")
    changed = [key for key, value in settings.items() if value != preset[key] and key not in always]
    options = [f"--{key.replace('_', '-')} {settings[key]}" for key in (*always, *changed)]
    threads = "OMP_NUM_THREADS=1 " if run.facts["threads"] == 1 else ""
    return " ".join([f"{threads}python train.py --preset {name}", *options]).replace(
        "--validation True", "--validation"
    )


def _commands(runs: Sequence[Run]) -> str:
    """The first seed's command in full, of the others what is other."""
    first = runs[0]
    texts = []
    for run in runs:
        command = command_line(run)
        like_first = run._replace(settings=replace(run.settings, seed=first.settings.seed))
        if run is not first and command_line(like_first) == command_line(first):
            command = f"--seed {run.settings.seed}"
        stretches = [_stretch(part) for part in run.facts.get("resumed", [])]
        texts.append(f"`{command}`" + (f" (`--resume` {'; '.join(stretches)})" if stretches else ""))
    return ", ".join(texts)


def _stretch(part: dict) -> str:
    threads = f", `OMP_NUM_THREADS={part['threads']}`" if "threads" in part else ""
    return f"from epoch {part['epoch']} on{threads}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> str:
    """Markdown; the columns named in `right` hold numbers, which stand to the right."""
    rule = ["---:" if name in right else "---" for name in header]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))


def networks_table(networks: dict[str, list[Run]], short: bool = False) -> str:
    """A Markdown table of all networks; `short`: without multiply-adds and commands."""
    rows = []
    for name, runs in networks.items():
        network = utils.new_network(name)
        count = count_parameters(network)
        over = "" if count < PARAMETER_LIMIT else ", over the limit"
        number = "" if len(runs) == 1 else f", {len(runs)} seeds"
        row = {
            "network": f"`{name}`",
            "parameters": f"{count:,}{over}",
            "multiply-adds": f"{count_multiply_adds(network) / 1e6:.1f} million",
            "receptive field": f"{receptive_field(network)[-1].r_out}",
            "epochs": f"{runs[0].settings.epochs}",
            "test accuracy, last epoch": f"**{_accuracy_text(runs)}**{number}",
            "time": _time(runs),
            "device, precision": _told(runs, _device),
            "command": _commands(runs),
        }
        if short:
            row |= {"network": f"[`{name}`](results/{name}/README.md)"}
            del row["multiply-adds"], row["command"]
        rows.append(row)
    return _table(
        tuple(rows[0]), [tuple(row.values()) for row in rows], ("multiply-adds", "receptive field", "epochs")
    )


def runs_table(runs: Sequence[Run]) -> str:
    """A Markdown table of single runs in results/."""
    rows = [
        (
            f"`results/{run.folder.name}`",
            f"{run.settings.epochs}",
            _accuracy_text([run]),
            _time([run]),
            _told([run], _device),
            _commands([run]),
        )
        for run in runs
    ]
    header = ("run", "epochs", "test accuracy, last epoch", "time", "device, precision", "command")
    return _table(header, rows, right=("epochs",))


def results_table(runs: Sequence[Run]) -> str:
    """A network's result and the facts of its runs, as a Markdown table."""
    network = utils.new_network(runs[0].settings.model)
    several = len(runs) > 1
    last = [f"{run.history[-1].test_accuracy:.2f}" for run in runs]
    of_seeds = f", mean and standard deviation of {len(runs)} seeds: {', '.join(last)}" if several else ""
    rows = [
        (
            "Test accuracy after the last epoch",
            f"**{_accuracy_text(runs)}** of {_images(runs[0])} images{of_seeds}",
        ),
        ("Parameters", f"{count_parameters(network):,}"),
        ("Multiply-adds", f"{count_multiply_adds(network) / 1e6:.1f} million an image"),
        ("Receptive field", f"{receptive_field(network)[-1].r_out} pixels"),
        ("Epochs", f"{runs[0].settings.epochs} ({_first_above(runs)})"),
        ("Seeds" if several else "Seed", ", ".join(str(run.settings.seed) for run in runs)),
        ("Device", f"{_told(runs, _device)}; the last test in float32"),
        ("Time", f"{_time(runs)}{' a seed' if several else ''}, tests included"),
        ("Versions", _told(runs, _versions)),
        ("Code", _told(runs, _commit)),
        ("Command", _commands(runs)),
    ]
    return _table(("", ""), rows)


def _first_above(runs: Sequence[Run]) -> str:
    first = [
        next((str(row.epoch) for row in run.history if row.test_accuracy >= ACCURACY_LIMIT), None)
        for run in runs
    ]
    if None in first:
        return f"{ACCURACY_LIMIT:g}% not reached"
    epochs = "epoch" if len(runs) == 1 else "epochs"
    return f"{ACCURACY_LIMIT:g}% first reached in {epochs} {', '.join(first)}"


def read_trials(path: Path) -> list[Trial]:
    """The rows of results/validation.csv. Raises UserError if it is missing or is no such table."""
    return _read_rows(path, Trial)


def read_marks(path: Path) -> list[Mark]:
    """The rows of results/public.csv. Raises UserError if it is missing or is no such table."""
    return _read_rows(path, Mark)


def _read_rows(path: Path, kind: type[Row]) -> list[Row]:
    """The rows of a CSV file with the fields of `kind`; empty cells are None where that may be."""
    types = typing.get_type_hints(kind).values()
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *lines = csv.reader(file)
        if tuple(header) != kind._fields:
            raise ValueError(f"its columns are {', '.join(header)}")
        return [
            kind(*(_cell(text, type_) for text, type_ in zip(line, types, strict=True))) for line in lines
        ]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} is no table of {', '.join(kind._fields)} ({error}): put it back") from error


def _cell(text: str, kind: type) -> str | float | int | None:
    if type(None) in typing.get_args(kind):
        return _cell(text, typing.get_args(kind)[0]) if text else None
    if kind is not str and not text:
        raise ValueError("a number is missing")
    return kind(text)


def validation_table(trials: Sequence[Trial]) -> str:
    """What was tried on the validation set, in the order of the file."""
    header = ("tried", "parameters", "multiply-adds", "epochs", "validation accuracy", "time")
    rows = [
        (
            trial.tried,
            f"{trial.thousand_parameters}k",
            "" if trial.million_multiply_adds is None else f"{trial.million_multiply_adds:.1f} million",
            f"{trial.epochs}",
            f"{trial.validation_accuracy:.2f}%",
            f"{trial.seconds} s",
        )
        for trial in trials
    ]
    return _table(header, rows, right=header[1:])
