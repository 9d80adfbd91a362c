"""Classifies photos, from the command line or a notebook.

python predict.py photo.jpg more/
python predict.py photo.jpg --run results/fast --json
"""

import json
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

import utils
from s9 import records
from s9.analysis.interpret import class_probabilities
from s9.data import photos
from s9.data.sources import description
from s9.engine.hardware import DEVICES
from s9.errors import CommandParser, UserError, printable

RESULTS = Path(__file__).parent / "results"


class Trained(NamedTuple):
    """A run's network, in evaluation mode, and what belongs to the data that it was trained on."""

    model: str
    network: nn.Module
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def main(arguments: list[str] | None = None) -> None:
    """Runs the command; ends with exit code 2 if a picture could not be read, after all the others."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    folder = options.run or records.leading_run(RESULTS)
    try:
        trained = trained_network(folder, options.device)
    except UserError as error:
        parser.error(str(error))
    predictions, errors = [], []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", photos.PhotoWarning)
        for path, answer in answers(trained, options.pictures):
            if isinstance(answer, UserError):
                errors.append({"file": str(path), "error": str(answer)})
                print(f"{parser.prog}: error: {answer}", file=sys.stderr, flush=True)
            elif options.json:
                predictions.append(as_json(path, answer))
            else:
                print(as_line(path, answer), flush=True)
    notes = [str(warning.message) for warning in caught if warning.category is photos.PhotoWarning]
    for note in notes:
        print(f"{parser.prog}: note: {note}", file=sys.stderr)
    if options.json:
        whole = {"run": str(folder), "model": trained.model, "predictions": predictions}
        print(json.dumps(whole | {"errors": errors, "notes": notes}, indent=2))
    if errors:
        parser.exit(2)


def make_parser() -> CommandParser:
    """The command line."""
    parser = CommandParser(
        prog="predict.py",
        odd_names=True,
        description="Classify pictures: for each, the likeliest class, its probability, and the next two. "
        "Only the middle square of a picture is used, resized to 32 x 32 pixels.",
        epilog="Exit code 2 if a picture could not be read; the others are predicted all the same.",
    )
    parser.add_argument(
        "pictures",
        nargs="+",
        type=Path,
        metavar="PICTURE",
        help="a file in any format that Pillow reads, or a folder: the pictures in it, not in its subfolders",
    )
    parser.add_argument("--run", type=Path, help="run folder; default: the run that README.md leads with")
    parser.add_argument("--json", action="store_true", help="one JSON document, with all probabilities")
    parser.add_argument("--device", default="auto", help=f"one of {', '.join(DEVICES)} (%(default)s)")
    return parser


def trained_network(folder: Path, device: str = "auto") -> Trained:
    """The network of a run folder, on the device. Raises UserError if the run or the device is not there."""
    run = records.read(folder)
    network = utils.trained_network(run, None, device).eval()
    return Trained(run.settings.model, network, *description(run.settings.dataset, run.facts.get("data", {})))


def answers(trained: Trained, paths: Iterable[Path]) -> Iterator[tuple[Path, dict[str, float] | UserError]]:
    """For each picture, in order: its path, and each class's probability, likeliest first, or what is wrong.

    paths: of pictures and of folders.
    """
    for path in paths:
        try:
            # Not path.is_dir(): it raises where a name is too long or a folder above may not be entered.
            files = photos.in_folder(path) if os.path.isdir(path) else [path]  # noqa: PTH112
        except UserError as error:
            yield path, error
            continue
        for file in files:
            try:
                image = photos.read(file)
            except UserError as error:
                yield file, error
                continue
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                (row,) = class_probabilities(trained.network, image[None], trained.mean, trained.std).tolist()
            pairs = zip(trained.classes, row, strict=True)
            yield file, dict(sorted(pairs, key=lambda pair: -pair[1]))


def as_line(path: Path, probabilities: dict[str, float]) -> str:
    """`photo.jpg: cat 93.1%, dog 4.2%, deer 1.1%`: the likeliest classes, in this order."""
    likeliest = list(probabilities.items())[:3]
    return f"{printable(path)}: {', '.join(f'{what} {probability:.1%}' for what, probability in likeliest)}"


def as_json(path: Path, probabilities: dict[str, float]) -> dict:
    """An entry of --json: the file, the likeliest class, and the probabilities of all classes."""
    rounded = {what: round(probability, 6) for what, probability in probabilities.items()}
    (likeliest, probability), *_ = rounded.items()
    return {"file": str(path), "class": likeliest, "probability": probability, "probabilities": rounded}


if __name__ == "__main__":
    main()
