"""Trains a network from the command line, or evaluates a trained one, by the same calls as the notebook.

python train.py --preset fast
python train.py --preset reference --epochs 30 --out runs/mine
python train.py --evaluate results/reference
"""

import argparse
import os
import shlex
import sys
from dataclasses import Field, fields, replace
from pathlib import Path

import utils
from dataset import loaders
from model import NETWORKS
from s9 import records
from s9.data.sources import DATASETS, load, load_recorded
from s9.engine.hardware import DEVICES, PRECISIONS, Hardware
from s9.engine.tracking import Tracker
from s9.errors import CommandParser, Interrupted, RunError, UserError, option, printable, run_command
from s9.settings import PRESETS, Settings, preset


def main(arguments: list[str] | None = None) -> None:
    """Runs the command. Exit codes: 2 for a user's mistake and 1 for a run that failed, each with one line;
    130 after Ctrl-C, once everything is saved and the command that resumes the run is printed."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    try:
        if options.evaluate is not None:
            used = ("evaluate", "data_dir", "device")
            given = [name for name, value in vars(options).items() if value != parser.get_default(name)]
            if unused := [option(name) for name in given if name not in used]:
                raise UserError(f"--evaluate trains nothing: leave out {', '.join(unused)}")
            evaluate(options.evaluate, options.data_dir, options.device)
        else:
            train(options)
    except UserError as error:
        if os.environ.get("RANK", "0") != "0":  # The first process of several prints the line.
            parser.exit(2)
        parser.error(str(error))
    except RunError as error:
        parser.exit(1, f"{parser.prog}: {printable(error)}\n")
    except Interrupted as error:
        command = ["python", "train.py", *(sys.argv[1:] if arguments is None else arguments)]
        command += [] if options.out else ["--out", str(error.folder)]
        command += [] if options.resume else ["--resume"]
        parser.exit(error.exit_code, f"\n{parser.prog}: {printable(error)}\n{shlex.join(command)}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"\n{parser.prog}: stopped; to continue the run saved last, add --resume\n")


def make_parser() -> CommandParser:
    """The parser of the command line. The options for Settings are made from its fields."""
    parser = CommandParser(
        prog="train.py",
        description="Train a network of model.py, testing it after every epoch, or evaluate a finished run.",
        epilog="The docstring of s9/records.py lists the files of a run folder.",
    )
    what = parser.add_argument_group("what to train")
    recipes = f"recipe: one of {', '.join(PRESETS)}; default: that of the model's name, else reference"
    what.add_argument("--preset", help=recipes)
    what.add_argument("--model", help=f"network: one of {', '.join(NETWORKS)}; default: the preset's")
    what.add_argument("--init", type=Path, metavar="RUN", help="start from this run's weights (fine-tuning)")
    sets = (
        f"one of {', '.join(DATASETS)}, or a folder of pictures; default: cifar10 if available, else digits"
    )
    what.add_argument("--dataset", default="auto", help=sets)
    place = "folder with CIFAR-10 or CIFAR-100; default: CIFAR10_DIR, else CIFAR-10 is downloaded once"
    what.add_argument("--data-dir", metavar="DIR", help=place)
    how = parser.add_argument_group("settings, in place of the recipe's")
    for setting in fields(Settings):
        if setting.name not in ("model", "dataset"):
            _add_option(how, setting)
    where = parser.add_argument_group("where")
    where.add_argument("--device", default="auto", help=f"one of {', '.join(DEVICES)} (%(default)s)")
    where.add_argument("--precision", default="auto", help=f"auto (the fastest), or {', '.join(PRECISIONS)}")
    workers = "processes that augment; default: with a GPU cores - 1, from 1 to 8; else 0"
    where.add_argument("--workers", type=int, metavar="N", help=workers)
    where.add_argument("--no-graph", action="store_true", help="capture no CUDA graph of the training step")
    where.add_argument("--out", type=Path, metavar="DIR", help="run folder; default: runs/MODEL-DATASET-N")
    where.add_argument("--track", metavar="NAME", help="also send the curves to tensorboard, wandb, ...")
    where.add_argument("--resume", action="store_true", help="continue the run in --out, else the last one")
    where.add_argument("--evaluate", type=Path, metavar="RUN", help="only test the weights of this run")
    return parser


def _add_option(group: argparse._ArgumentGroup, setting: Field) -> None:
    """Adds the option of a field of Settings; None if it is not given."""
    kind, text = type(setting.default), setting.metadata["help"]
    if kind is bool:
        group.add_argument(option(setting.name), action="store_true", default=None, help=text)
        return
    values = {name: getattr(settings, setting.name) for name, settings in PRESETS.items()}
    differ = len(set(values.values())) > 1
    default = ", ".join(f"{name} {value}" for name, value in values.items()) if differ else setting.default
    metavar = "N" if kind is int else "X"
    group.add_argument(option(setting.name), type=kind, metavar=metavar, help=f"{text}; default: {default}")


def chosen_settings(options: argparse.Namespace) -> Settings:
    """The settings of the preset, with the changes that the options name.

    Raises UserError for an unknown preset and for values outside of their range.
    """
    default = options.model if options.model in PRESETS else "reference"
    name = default if options.preset is None else options.preset
    given = {setting.name: getattr(options, setting.name) for setting in fields(Settings)}
    changes = {key: value for key, value in given.items() if key != "dataset" and value is not None}
    return replace(preset(name), **changes)


def train(options: argparse.Namespace) -> None:
    """Trains as the options say. Raises UserError for options that do not fit together."""
    settings = chosen_settings(options)
    utils.new_network(settings.model)  # Refuses an unknown name before the data is loaded.
    tracker = Tracker(options.track) if options.track else lambda run: None
    data = load(options.dataset, options.data_dir)
    settings = replace(settings, dataset=data.name)
    utils.fit(
        settings,
        data,
        options.out,
        resume=options.resume,
        hardware=Hardware(options.device, options.precision, options.workers, not options.no_graph),
        after_epoch=tracker,
        init=options.init,
    )


def evaluate(folder: Path, data_dir: str | None, device: str = "auto") -> None:
    """Tests a run's weights in float32, on the test or validation set of its history; prints the scores."""
    run = records.read(folder)
    data = load_recorded(run.settings.dataset, run.facts["data"], data_dir)
    data = data.validation() if run.settings.validation else data
    network = utils.trained_network(run, None, device)
    recorded, here = run.facts["data"]["fingerprint"], data.fingerprint()
    if here != recorded:
        print(f"These are other data (fingerprint {here}) than the run's ({recorded}): scores may differ")
    _, test_loader = loaders(data, device=next(network.parameters()).device)
    utils.test(network, test_loader, "Validation" if run.settings.validation else "Test")


if __name__ == "__main__":
    run_command(main)
