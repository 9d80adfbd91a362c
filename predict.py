"""Classifies photos, from the command line or a notebook.

python predict.py photo.jpg more/
python predict.py photo.jpg --run results/fast --json
"""

import json
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import nn

import utils
from s9 import records
from s9.analysis.interpret import class_probabilities
from s9.data import photos
from s9.data.sources import description
from s9.engine.hardware import DEVICES
from s9.errors import CommandParser, UserError, printable, run_command


class Classifier(NamedTuple):
    """A run's network, in evaluation mode, and what belongs to the data that it was trained on."""

    model: str
    network: nn.Module
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def main(arguments: list[str] | None = None) -> None:
    """Prints `photo.jpg: cat 93.1%, dog 4.2%, deer 1.1%` for each picture, or one JSON document of all.

    Ends with exit code 2 if a picture could not be read, after all the others.
    """
    parser = CommandParser(
        prog="predict.py",
        description="Classify pictures: for each, the likeliest class, its probability, and the next two. "
        "Only the middle square of a picture is used, resized to 32 x 32 pixels. Of a folder, all pictures "
        "are classified, but not those in its subfolders.",
        epilog="Exit code 2 if a picture could not be read; the others are predicted all the same.",
    )
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE", help="a file or a folder")
    parser.add_argument("--run", type=Path, help="run folder; default: the run that README.md leads with")
    parser.add_argument("--json", action="store_true", help="one JSON document, with all probabilities")
    parser.add_argument("--device", default="auto", help=f"one of {', '.join(DEVICES)} (%(default)s)")
    options = parser.parse_args(arguments)
    folder = options.run or records.leading_run(Path(__file__).parent / "results")
    try:
        trained = load_classifier(folder, options.device)
    except UserError as error:
        parser.error(str(error))
    predictions, errors = [], []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", photos.PhotoWarning)
        for path, image in photos.read_all(options.pictures):
            if isinstance(image, UserError):
                errors.append({"file": str(path), "error": str(image)})
                print(f"{parser.prog}: error: {image}", file=sys.stderr, flush=True)
                continue
            answer = classify(trained, image)
            rounded = {what: round(share, 6) for what, share in answer.items()}
            (name, probability), *_ = rounded.items()
            entry = {"file": str(path), "class": name, "probability": probability, "probabilities": rounded}
            predictions.append(entry)
            if not options.json:
                likeliest = [f"{what} {share:.1%}" for what, share in list(answer.items())[:3]]
                print(f"{printable(path)}: {', '.join(likeliest)}", flush=True)
    notes = [str(warning.message) for warning in caught if warning.category is photos.PhotoWarning]
    for note in notes:
        print(f"{parser.prog}: note: {note}", file=sys.stderr)
    if options.json:
        whole = {"run": str(folder), "model": trained.model, "predictions": predictions}
        print(json.dumps(whole | {"errors": errors, "notes": notes}, indent=2))
    if errors:
        parser.exit(2)


def load_classifier(folder: Path, device: str = "auto") -> Classifier:
    """The network of a run folder, on the device. Raises UserError if the run or the device is not there."""
    run = records.read(folder)
    network = utils.trained_network(run, None, device).eval()
    return Classifier(run.settings.model, network, *description(run.settings.dataset, run.facts["data"]))


def classify(trained: Classifier, image: np.ndarray) -> dict[str, float]:
    """Each class's probability, likeliest first. image: as photos.read returns it."""
    (row,) = class_probabilities(trained.network, image[None], trained.mean, trained.std).tolist()
    return dict(sorted(zip(trained.classes, row, strict=True), key=lambda pair: -pair[1]))


if __name__ == "__main__":
    run_command(main)
