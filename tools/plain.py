"""The plain recipe that the benchmark compares with: how most copies of this assignment load and train.

    python -m tools.plain results/plain.json    trains by it, and records every epoch; three hours on one core

PIL images, Albumentations with Normalize and ToTensorV2, the default collation; float32 in the default memory
format; SGD at a constant rate; `reference` with Dropout 0.05, as in the repository that the network comes
from.
"""

import io
import json
import time
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import dataset
from dataset import test_transform, train_transform
from model import S9Net, build
from s9 import files, records
from s9.data.augment import A
from s9.data.sources import Data
from s9.engine.hardware import DEVICES, make_accelerator
from s9.errors import CommandParser, UserError, run_command

BATCH_SIZE = 128
EPOCHS = 75
"""As many as the repository that the network comes from trained."""


class PlainImages(Dataset):
    """One image at a time, through PIL and Albumentations."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: A.Compose) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.images[index])
        return self.transform(image=np.array(image))["image"], int(self.labels[index])


def plain_loaders(data: Data, workers: int) -> tuple[DataLoader, DataLoader]:
    """The loaders of the training and the test set."""
    train = PlainImages(data.train_images, data.train_labels, train_transform())
    test = PlainImages(data.test_images, data.test_labels, test_transform())
    options = {"batch_size": BATCH_SIZE, "num_workers": workers, "persistent_workers": workers > 0}
    return DataLoader(train, shuffle=True, **options), DataLoader(test, **options)


class Plain:
    """A network and its training. accuracy: of the images of the last pass, percent."""

    def __init__(self, device: torch.device, name: str = "reference") -> None:
        self.device = device
        self.network = (S9Net(dropout=0.05) if name == "reference" else build(name)).to(device)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.01, momentum=0.9)
        self.accuracy = 0.0

    def train(self, batches: list | DataLoader, learn: bool = True) -> int:
        """Takes a step a batch, if it is to learn; returns the number of images."""
        self.network.train(learn)
        correct = count = 0
        for images, labels in batches:
            labels = labels.to(self.device)
            logits = self.network(images.to(self.device))
            if learn:
                self.optimizer.zero_grad()
                F.cross_entropy(logits, labels).backward()
                self.optimizer.step()
            correct += (logits.argmax(1) == labels).sum().item()
            count += len(labels)
        self.accuracy = 100 * correct / count
        return count

    @torch.no_grad()
    def test(self, batches: list | DataLoader) -> int:
        """Counts correct predictions; returns the number of images."""
        return self.train(batches, learn=False)


def train_recorded(data: Data, device: torch.device, file: Path, epochs: int = EPOCHS) -> None:
    """Trains `reference` by the plain recipe; writes the facts, and a row for each epoch, to `file`.

    Every epoch has its own seed: a run that was stopped continues, from the checkpoint beside `file`, as if
    nothing had happened. Raises UserError if there is a file without a checkpoint, or one of other data.
    """
    checkpoint = file.with_name("checkpoint-plain.pt")
    torch.manual_seed(0)
    plain, (train_loader, test_loader) = Plain(device), plain_loaders(data, workers=0)
    images = cast(PlainImages, train_loader.dataset)
    record = records.collect_facts(data.facts(), device, "float32", workers=0) | {"epochs": []}
    if checkpoint.exists():
        with records.reading(checkpoint, "is damaged", f"delete it and {file}, and train again"):
            state = torch.load(checkpoint, map_location=device, weights_only=True)
            plain.network.load_state_dict(state["network"])
            plain.optimizer.load_state_dict(state["optimizer"])
            record, recorded = state["record"], state["record"]["data"]
        records.check_data(recorded, data.facts())
    elif file.exists():
        raise UserError(f"{file} exists, and no {checkpoint.name} beside it: choose another file")
    for epoch in range(len(record["epochs"]) + 1, epochs + 1):
        torch.manual_seed(epoch)
        images.transform.set_random_seed(epoch)
        started = time.perf_counter()
        plain.train(train_loader)
        row = {"epoch": epoch, "train_accuracy": round(plain.accuracy, 2)}
        plain.test(test_loader)
        row |= {"test_accuracy": round(plain.accuracy, 2), "seconds": round(time.perf_counter() - started, 1)}
        record["epochs"].append(row)
        state = {"network": plain.network.state_dict(), "optimizer": plain.optimizer.state_dict()}
        content = io.BytesIO()
        torch.save(state | {"record": record}, content)
        files.replace(checkpoint, content.getvalue())
        files.replace(file, (json.dumps(record, indent=2) + "\n").encode())
        print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command; ends with exit code 2 after one line about a user's mistake."""
    parser = CommandParser(prog="python -m tools.plain", description="Train `reference` by the plain recipe.")
    parser.add_argument("file", type=Path, help="record of the epochs; one with its checkpoint is continued")
    parser.add_argument("--data-dir", metavar="DIR", help="folder that holds CIFAR-10")
    parser.add_argument("--device", default="auto", help=f"one of {', '.join(DEVICES)} (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        files.ensure_writable(options.file, "plain.json")
        device = make_accelerator(options.device, "float32").device
        train_recorded(dataset.load("cifar10", options.data_dir), device, options.file)
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    run_command(main)
