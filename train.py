"""Trains a network from the command line, or evaluates one that was trained: the notebook's very same calls.

python train.py --preset fast
python train.py --preset reference --epochs 30 --out runs/mine
python train.py --evaluate results/reference
"""

import argparse
import os
import shlex
import sys
from dataclasses import fields, replace
from pathlib import Path

import torch

import utils
from dataset import loaders
from model import NETWORKS
from s9 import records
from s9.data.sources import DATASETS, load
from s9.engine import hardware
from s9.errors import CommandParser, Interrupted, RunError, UserError
from s9.settings import PRESETS, Settings, preset

FIRST_PROCESS = os.environ.get("RANK", "0") == "0"
"""Of those that `accelerate launch` may have started; the others hold their tongue."""


def main(arguments: list[str] | None = None) -> None:
    """Runs the command; ends with exit code 2 after one line about a user's mistake, with 1 after one about a
    run that failed, and with 130 after Ctrl-C, once all is kept and the command that goes on is printed."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    try:
        if options.evaluate is not None:
            evaluate(options.evaluate, options.data_dir, options.device)
        else:
            train(options)
    except UserError as error:
        if not FIRST_PROCESS:
            parser.exit(2)
        parser.error(str(error))
    except RunError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    except Interrupted as error:
        again = sys.argv[1:] if arguments is None else arguments
        parser.exit(error.exit_code, f"\n{parser.prog}: {error}\n{resume_command(again, error.folder)}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"\n{parser.prog}: stopped; to continue the run saved last, add --resume\n")


def resume_command(arguments: list[str], folder: Path) -> str:
    """The command that continues the run of these arguments in `folder`."""
    known = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    known.add_argument("--out")
    known.add_argument("--resume", action="store_true")
    _, rest = known.parse_known_args(arguments)
    return shlex.join(["python", "train.py", *rest, "--out", str(folder), "--resume"])


def make_parser() -> CommandParser:
    """The command line; what it leaves open is the preset's."""
    parser = CommandParser(
        prog="train.py",
        description="Train a network of model.py, testing it after every epoch, or evaluate a finished run.",
        epilog="What a run folder holds is told at the top of records.py.",
    )
    what = parser.add_argument_group("what to train")
    what.add_argument(
        "--preset",
        default="reference",
        help=f"network and settings together, one of {', '.join(PRESETS)} (%(default)s); the options below "
        "change single ones",
    )
    what.add_argument("--model", help=f"one of {', '.join(NETWORKS)}; default: the preset's")
    what.add_argument(
        "--dataset",
        default="auto",
        help=f"one of {', '.join(DATASETS)}; auto, the default, is cifar10 where it can be had, else digits, "
        "and says so",
    )
    what.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder that holds CIFAR-10 (cifar-10-batches-py, or two parquet files); default: the variable "
        "CIFAR10_DIR of the environment, else it is downloaded once",
    )
    what.add_argument(
        "--validation",
        action="store_true",
        default=None,
        help="hold out the last 5,000 training images and test on them: for choices",
    )
    how = parser.add_argument_group("how")
    for name, kind, text in (
        ("epochs", int, "passes over the training set; the schedule spans them all"),
        ("batch_size", int, "images a step"),
        ("learning_rate", float, "peak of the one-cycle schedule"),
        ("bias_rate", float, "learning rate of the biases, in units of the kernels'"),
        ("muon_rate", float, "learning rate of Muon, for the kernels in front of a norm; 0: all by SGD"),
        ("weight_decay", float, "on kernels, not on norms"),
        ("label_smoothing", float, "0 to 1"),
        ("augmentation", float, "probability of ShiftScaleRotate and of CoarseDropout, each"),
        ("shift", float, "farthest that ShiftScaleRotate moves an image, in parts of its side"),
        ("first_size", int, "side of the first epochs' training images, which grow to 32 pixels"),
        ("seed", int, "decides the first weights, the order and the augmentations"),
    ):
        values = ", ".join(f"{preset} {getattr(settings, name)}" for preset, settings in PRESETS.items())
        how.add_argument(
            "--" + name.replace("_", "-"),
            type=kind,
            metavar="N" if kind is int else "X",
            help=f"{text}; default: {values}",
        )
    where = parser.add_argument_group("where")
    where.add_argument("--device", default="auto", help=f"one of {', '.join(hardware.DEVICES)} (%(default)s)")
    where.add_argument(
        "--precision",
        default="auto",
        help=f"of training: auto, the default, is the fastest here; or {', '.join(hardware.PRECISIONS)}",
    )
    where.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that augment; default: beside a GPU one fewer than there are cores, else none",
    )
    where.add_argument(
        "--out", type=Path, metavar="DIR", help="run folder; default: the next free runs/MODEL-DATASET-N"
    )
    where.add_argument(
        "--resume",
        action="store_true",
        help="continue the run in --out; without --out, the one saved last in runs/",
    )
    where.add_argument(
        "--evaluate", type=Path, metavar="RUN", help="train nothing: test the weights of this run folder"
    )
    return parser


def chosen_settings(options: argparse.Namespace) -> Settings:
    """The preset's settings with the changes that the options name; UserError for what makes no sense."""
    changes = {
        field.name: getattr(options, field.name)
        for field in fields(Settings)
        if field.name != "dataset" and getattr(options, field.name) is not None
    }
    return replace(preset(options.preset), **changes)


def train(options: argparse.Namespace) -> None:
    """Trains what the options say. Raises UserError for options that do not fit."""
    settings = chosen_settings(options)
    utils.new_network(settings.model)  # Refuses an unknown name before the data is loaded.
    data = load(options.dataset, options.data_dir)
    settings = replace(settings, dataset=data.name)
    utils.fit(
        settings,
        data,
        options.out,
        resume=options.resume,
        device=options.device,
        precision=options.precision,
        workers=options.workers,
    )


def evaluate(folder: Path, data_dir: str | None, device: str = "auto") -> utils.Scores:
    """Tests a run's weights on the set that its history was made with, in float32, and prints the result."""
    run = records.read(folder)
    data = load(run.settings.dataset, data_dir)
    network = utils.trained_network(run, data)
    if run.settings.validation:
        data = data.validation()
    network.to(hardware.make_accelerator(device, "float32").device, memory_format=torch.channels_last)
    _, test_loader = loaders(data, device=next(network.parameters()).device)
    return utils.test(network, test_loader, "Validation" if run.settings.validation else "Test")


if __name__ == "__main__":
    main()
