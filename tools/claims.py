"""The results that this repository reports: runs seed by seed, trials, public networks, and their tables.

results/<network>/          a run folder (see s9/records.py): the network's first seed
results/<network>/seed-1/   a run with the same settings but for the seed; seed-2 and so on likewise
results/short/, notebook/   runs of `best` as long as the notebook's without and with a GPU
results/long/               a long run of `best` on a CPU
results/trials/<name>/      a run on the validation set, without its weights
results/public.csv          networks of others, see read_marks()
"""

import csv
import functools
import hashlib
import math
import operator
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import accumulate, pairwise
from pathlib import Path

import utils
from model import NETWORKS, count_parameters
from s9 import records
from s9.analysis.receptive_field import receptive_field
from s9.analysis.summary import count_multiply_adds
from s9.engine.progress import in_words
from s9.errors import UserError
from s9.records import Epoch, Run
from s9.settings import PRESETS
from tools.audit import ACCURACY_LIMIT, PARAMETER_LIMIT

RULES = ("blocks", "no pooling", "RF > 44", "depthwise", "dilated", "GAP", "< 200k")
"""The assignment's rules on a network, as results/public.csv abbreviates them; see tools.audit."""


def read_seeds(folder: Path) -> list[Run]:
    """A network's runs: the one in `folder`, then those in its seed-1, seed-2 and so on.

    Raises UserError unless all are whole runs on CIFAR-10's test set, with their weights, and differ in the
    seed alone.
    """
    others = sorted(folder.glob("seed-*"), key=lambda path: (len(path.name), path.name))
    first, *more = runs = [records.read(path) for path in (folder, *others)]
    for run in runs:
        _check_whole(run, validation=False)
        records.read_weights(run.folder, utils.new_network(run.settings.model))
    for run in more:
        seed, like_first = run.settings.seed, replace(run.settings, seed=first.settings.seed)
        if like_first != first.settings or seed == first.settings.seed or run.folder.name != f"seed-{seed}":
            problem = "must have the same settings but for the seed, which the folder's name tells"
            raise UserError(f"{run.folder} and {folder} {problem}")
    return runs


def read_trials(folder: Path) -> list[Run]:
    """The runs in the subfolders of `folder`. Raises UserError if one is no whole run on a validation set."""
    runs = [records.read(path.parent) for path in sorted(folder.glob(f"*/{records.SETTINGS}"))]
    for run in runs:
        _check_whole(run, validation=True)
    return runs


def _check_whole(run: Run, validation: bool) -> None:
    settings = run.settings
    if settings.dataset != "cifar10" or settings.validation != validation:
        name = "validation" if validation else "test"
        raise UserError(f"{run.folder} is not a run on CIFAR-10's {name} set: it cannot be shown here")
    if not run.complete:
        raise UserError(f"{run.folder} holds {len(run.history)} of {settings.epochs} epochs: --resume it")


def read_networks(results: Path) -> dict[str, list[Run]]:
    """The runs of every network with a folder of its name in `results`, in the order of model.NETWORKS.

    Raises UserError as read_seeds does, and if a folder holds another network than its name says.
    """
    networks = {name: read_seeds(results / name) for name in NETWORKS if (results / name).is_dir()}
    for name, (run, *_) in networks.items():
        if run.settings.model != name:
            raise UserError(f"{run.folder} holds a run of {run.settings.model}: rename the folder")
    return networks


def accuracy(runs: Sequence[Run]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (None for one run) of the last epochs' accuracies, percent."""
    values = [run.history[-1].test_accuracy for run in runs]
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None


def first_passing_epoch(history: Sequence[Epoch]) -> int | None:
    """The first epoch whose test accuracy the assignment accepts; None if there is none."""
    return next((row.epoch for row in history if row.test_accuracy >= ACCURACY_LIMIT), None)


def sampling_error(accuracy: float, images: int) -> float:
    """Standard error of an accuracy in percent that was measured on so many images, in points."""
    return math.sqrt(accuracy * (100 - accuracy) / images)


def accuracy_text(runs: Sequence[Run]) -> str:
    """The mean, with the standard deviation if there are several runs, in bold."""
    mean, spread = accuracy(runs)
    return f"**{mean:.2f}%**" if spread is None else f"**{mean:.2f} ± {spread:.2f}%**"


def _time(runs: Sequence[Run]) -> str:
    """The quickest run's on each kind of hardware, in the order of _told(): slower ones had to share it."""
    seconds = defaultdict(list)
    for run in runs:
        seconds[_told([run], DEVICE)].append(sum(row.seconds for row in run.history))
    return "; ".join(in_words(min(values)) for values in seconds.values())


def _told(runs: Sequence[Run], tell: Callable[[dict], str]) -> str:
    """What `tell` says of each run's facts, each text once; of a resumed run, also where that changes."""
    texts = []
    for run in runs:
        text, parts = tell(run.facts), [run.facts, *run.facts.get("resumed", [])]
        for before, now in pairwise(accumulate(parts, operator.or_)):
            if tell(now) != tell(before):
                text += f" (from epoch {now['epoch']} on: {tell(now)})"
        texts.append(text)
    return "; ".join(dict.fromkeys(texts))


DEVICE, COMMIT = "{device}, {precision}".format_map, "`{commit}`".format_map


def versions(facts: dict) -> str:
    """Of Python and of the packages, from the facts of a run."""
    return ", ".join([f"Python {facts['python']}", *(" ".join(pair) for pair in facts["versions"].items())])


def command_line(run: Run) -> str:
    """The command that repeats a run; on a CPU, bit for bit with the same number of threads only."""
    settings = asdict(run.settings)
    # A network of another commit may have no preset, here or there.
    name = run.settings.model if run.settings.model in PRESETS else "reference"
    preset = asdict(PRESETS[name])
    always = ("dataset", "epochs", "seed")
    changed = [key for key, value in settings.items() if value != preset[key] and key not in always]
    options = [f"--{key.replace('_', '-')} {settings[key]}" for key in (*always, *changed)]
    if "init" in run.facts:
        options.append(f"--init {run.facts['init']['folder']}")
    threads = "OMP_NUM_THREADS=1 " if run.facts["threads"] == 1 else ""
    return " ".join([f"{threads}python train.py --preset {name}", *options]).replace(" True", "")


def _commands(runs: Sequence[Run]) -> str:
    """The first seed's command in full; of the others the seed, if nothing else differs."""
    commands, seeds = [], [f"--seed {run.settings.seed}" for run in runs]
    for run in runs:
        text = f"`{command_line(run)}`"
        for part in run.facts.get("resumed", []):
            threads = f", `OMP_NUM_THREADS={part['threads']}`" if "threads" in part else ""
            text += f" (`--resume` from epoch {part['epoch']} on{threads})"
        commands.append(text)
    like_first = {commands[0].replace(seeds[0], seed): f"`{seed}`" for seed in seeds[1:]}
    return ", ".join(like_first.get(command, command) for command in commands)


def table(rows: Sequence[dict[str, str]], right: Sequence[str] = ()) -> str:
    """Markdown of rows that have the same keys; `right`: names of the columns to align to the right."""
    header = tuple(rows[0])
    rule = ["---:" if name in right else "---" for name in header]
    lines = (header, rule, *(row.values() for row in rows))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _row(runs: Sequence[Run]) -> dict[str, str]:
    """What tables say of runs that differ in the seed alone."""
    name = "validation" if runs[0].settings.validation else "test"
    with records.reading(runs[0].folder / records.SETTINGS, "is not the record of a run"):
        return {
            "epochs": f"{runs[0].settings.epochs}",
            f"{name} accuracy, last epoch": accuracy_text(runs),
            "n": f"{len(runs)}",
            "shortest time": _time(runs),
            "device, precision": _told(runs, DEVICE),
            "commit": _told(runs, COMMIT),
            "command": _commands(runs),
        }


@functools.cache
def _network_row(model: str) -> dict[str, str]:
    network = utils.new_network(model)
    count = count_parameters(network)
    return {
        "parameters": f"{count:,}" + ("" if count < PARAMETER_LIMIT else ", over the limit"),
        "multiply-adds": f"{count_multiply_adds(network) / 1e6:.1f} million",
        "receptive field": f"{receptive_field(network)[-1].r_out}",
    }


def networks_table(networks: dict[str, list[Run]], short: bool = False) -> str:
    """A Markdown table of all networks.

    short: without multiply-adds, commits and commands, and with times of seeds that one machine trained.
    """
    rows = []
    for name, runs in networks.items():
        link = f"[`{name}`](results/{name}/README.md)" if short else f"`{name}`"
        row = {"network": link, **_network_row(name), **_row(runs)}
        if short:
            stayed = [
                run for run in runs if not any("device" in part for part in run.facts.get("resumed", []))
            ]
            others = ", and others" if 0 < len(stayed) < len(runs) else ""
            timed = stayed or runs
            row |= {"shortest time": _time(timed), "device, precision": _told(timed, DEVICE) + others}
        left_out = ("multiply-adds", "commit", "command") if short else ()
        rows.append({key: value for key, value in row.items() if key not in left_out})
    return table(rows, ("multiply-adds", "receptive field", "epochs", "n"))


def runs_table(runs: Sequence[Run]) -> str:
    """A Markdown table of single runs in results/ or of trials, at least one; they may differ in anything."""
    folder = "results/trials" if runs[0].settings.validation else "results"
    return table([{"run": f"`{folder}/{run.folder.name}`", **_row([run])} for run in runs], ("epochs", "n"))


def marks_table(marks: Sequence[dict[str, str]]) -> str:
    """A Markdown table of the public networks."""
    rows = [
        {
            "network": mark["name"],
            "parameters": f"{int(mark['parameters']):,}",
            "test accuracy": f"{mark['accuracy']}%",
            "protocol": mark["protocol"] or "not stated",
            "epochs": mark["epochs"] or "not stated",
            "receptive field": mark["receptive_field"],
            "rules that it breaks": ", ".join(rule for rule in RULES if rule not in mark["rules"]) or "none",
            "source": mark["source"],
        }
        for mark in marks
    ]
    return table(rows, ("parameters", "test accuracy", "epochs", "receptive field"))


def results_table(run: Run) -> str:
    """The result of a run and the facts that belong to it, as a Markdown table of one fact a row."""
    network, row, images = _network_row(run.settings.model), _row([run]), run.facts["data"]["test"]
    name, result = "Validation" if run.settings.validation else "Test", run.history[-1].test_accuracy
    passing = first_passing_epoch(run.history)
    reached = f"first reached in epoch {passing}" if passing else "not reached"
    rows = {
        f"{name} accuracy, last epoch": f"{accuracy_text([run])} of {images:,} images",
        "Sampling error": f"{sampling_error(result, images):.2f} points",
        "Parameters": network["parameters"],
        "Multiply-adds": f"{network['multiply-adds']} an image",
        "Receptive field": f"{network['receptive field']} pixels",
        "Epochs": f"{row['epochs']} ({ACCURACY_LIMIT:g}% {reached})",
        "Seed": f"{run.settings.seed}",
        "Device": f"{row['device, precision']}; the last test in float32",
        "Time": f"{row['shortest time']}, tests included",
        "Data": f"fingerprint `{run.facts['data']['fingerprint']}`",
        "Versions": _told([run], versions),
        "Commit": row["commit"],
        "Command": row["command"],
    }
    weights = run.folder / records.WEIGHTS
    if weights.exists():
        rows["Weights"] = f"SHA-256 `{hashlib.sha256(weights.read_bytes()).hexdigest()}`"
    return table([{"": fact, " ": value} for fact, value in rows.items()])


def read_marks(path: Path) -> list[dict[str, str]]:
    """The rows of results/public.csv: networks as their authors publish them; what is not stated is "".

    accuracy: on the test set, percent. rules: those of RULES that its code or its summary keeps, separated
    by ", ". protocol: the epoch whose accuracy it is, averaging, test-time augmentation.
    """
    with records.reading(path, "is not the table of public networks", "git restore it"):
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, strict=True))
        rules = {rule for row in rows for rule in row["rules"].split(", ")}
        numbers = [float(row[name] or 0) for row in rows for name in ("parameters", "accuracy", "epochs")]
        if not numbers or not rules <= {*RULES, ""} or any(None in row.values() for row in rows):
            raise ValueError("a row is cut or names an unknown rule, or there is none")
        return rows
