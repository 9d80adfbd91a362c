"""Classifies photos, from the command line or a notebook.

python predict.py photo.jpg more/
python predict.py photo.jpg --run results/fast --json
"""

import itertools
import json
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

import utils
from dataset import TEST_BATCH_SIZE
from s9 import records
from s9.data import photos
from s9.data.cifar10 import MEAN, STD
from s9.data.device_loader import normalise
from s9.data.sources import description
from s9.engine.hardware import DEVICES, make_accelerator
from s9.errors import CommandParser, UserError, printable

RESULTS = Path(__file__).parent / "results"
LIKELIEST = 3


class Trained(NamedTuple):
    """A run's network, and what belongs to the data that it was trained on."""

    model: str
    """A name in model.NETWORKS."""
    network: nn.Module
    """In evaluation mode."""
    dataset: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def main(arguments: list[str] | None = None) -> None:
    """Runs the command; ends with exit code 2 if a picture could not be read, after all the others."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    folder = options.run or default_run()
    try:
        trained = trained_network(folder, options.device)
    except UserError as error:
        parser.error(printable(error))
    predictions, errors, notes = [], [], []

    def note(message: Warning, *_: object) -> None:
        notes.append(str(message))
        print(f"{parser.prog}: note: {message}", file=sys.stderr, flush=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always", photos.PhotoWarning)
        warnings.showwarning = note
        for path, answer in answers(trained, options.pictures):
            if isinstance(answer, UserError):
                errors.append({"file": str(path), "error": str(answer)})
                print(f"{parser.prog}: error: {answer}", file=sys.stderr, flush=True)
            elif options.json:
                predictions.append(as_json(path, answer))
            else:
                print(as_line(path, answer), flush=True)
    if options.json:
        whole = {"run": str(folder), "model": trained.model, "predictions": predictions}
        whole |= {"errors": errors, "notes": notes}
        print(json.dumps(whole, indent=2))
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
        help="a file in any format that Pillow reads, or a folder: its files whose names end like a "
        "picture's, without those in subfolders",
    )
    parser.add_argument(
        "--run",
        type=Path,
        metavar="RUN",
        help="run folder whose network to ask; default: results/best, or results/reference if there is none",
    )
    parser.add_argument(
        "--json", action="store_true", help="one JSON document, with the probabilities of all classes"
    )
    parser.add_argument("--device", default="auto", help=f"one of {', '.join(DEVICES)} (%(default)s)")
    return parser


def default_run() -> Path:
    """The folder of the best network that has been trained."""
    return records.leading_run(RESULTS)


def trained_network(folder: Path, device: str = "auto") -> Trained:
    """The network of a run folder, on the device. Raises UserError if the run or the device is not there."""
    run = records.read(folder)
    network = utils.network_of(run)
    records.load_weights(folder, network)
    device = make_accelerator(device, "float32").device
    network.eval().to(device, memory_format=torch.channels_last)
    data = description(run.settings.dataset, run.facts.get("data", {}))
    return Trained(run.settings.model, network, run.settings.dataset, *data)


def answers(trained: Trained, paths: Iterable[Path]) -> Iterator[tuple[Path, dict[str, float] | UserError]]:
    """For each picture, in order: its path, and each class's probability, likeliest first, or what is wrong.

    paths: of pictures and of folders. Read and classified TEST_BATCH_SIZE at a time, however many there are.
    """
    for batch in _batches(_found(paths)):
        images = [answer for _, answer in batch if not isinstance(answer, UserError)]
        rows = iter(classify(trained.network, images, trained.mean, trained.std) if images else ())
        for path, answer in batch:
            if isinstance(answer, UserError):
                yield path, answer
            else:
                pairs = zip(trained.classes, next(rows).tolist(), strict=True)
                yield path, dict(sorted(pairs, key=lambda pair: -pair[1]))


def _found(paths: Iterable[Path]) -> Iterator[tuple[Path, np.ndarray | UserError]]:
    for path in paths:
        try:
            # Not path.is_dir(): it raises where a name is too long or a folder above may not be entered.
            files = photos.in_folder(path) if os.path.isdir(path) else [path]  # noqa: PTH112
        except UserError as error:
            yield path, error
            continue
        for file in files:
            try:
                yield file, photos.read(file)
            except UserError as error:
                yield file, error


def _batches(items: Iterable) -> Iterator[list]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, TEST_BATCH_SIZE)):
        yield batch


@torch.no_grad()
def classify(
    network: nn.Module,
    images: Iterable[np.ndarray],
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
) -> np.ndarray:
    """The probability of each class for each image: float32 (n, classes), in 0..1, rows adding up to 1.

    network: on any device; it is left in evaluation mode.
    images: uint8 (32, 32, 3), RGB, as photos.read and photos.fit make them; any number, taken from the
    iterable TEST_BATCH_SIZE at a time. mean, std: of the training set, per channel, in 0..1.

    Raises UserError if there are none, or not of that shape and type.
    """
    device = next(network.parameters()).device
    mean, std = torch.tensor(mean, device=device), torch.tensor(std, device=device)
    network.eval()
    rows = []
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for batch in _batches(images):
            for image in batch:
                if image.shape != (photos.SIZE, photos.SIZE, 3) or image.dtype != np.uint8:
                    raise UserError(
                        f"an image of shape {image.shape} and type {image.dtype}: give uint8 (32, 32, 3), as "
                        "photos.read and photos.fit make them"
                    )
            inputs = normalise(torch.from_numpy(np.stack(batch)).to(device), mean, std)
            rows.append(network(inputs).softmax(1).cpu().numpy())
    if not rows:
        raise UserError("no images to classify: give one or more")
    return np.concatenate(rows)


def as_line(path: Path, probabilities: dict[str, float]) -> str:
    """`photo.jpg: cat 93.1%, dog 4.2%, deer 1.1%`: the likeliest classes, in this order."""
    likeliest = list(probabilities.items())[:LIKELIEST]
    return f"{printable(path)}: {', '.join(f'{what} {probability:.1%}' for what, probability in likeliest)}"


def as_json(path: Path, probabilities: dict[str, float]) -> dict:
    """An entry of --json: the file, the likeliest class, and the probabilities of all classes."""
    rounded = {what: round(probability, 6) for what, probability in probabilities.items()}
    (likeliest, probability), *_ = rounded.items()
    return {"file": str(path), "class": likeliest, "probability": probability, "probabilities": rounded}


if __name__ == "__main__":
    main()
