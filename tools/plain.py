"""The plain recipe that the benchmark compares with: how most copies of this assignment load and train.

PIL images, Albumentations with Normalize and ToTensorV2, the default collation; float32 in the default memory
format; `reference` with Dropout 0.05, as in the repository that the network comes from.
"""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dataset import test_transform, train_transform
from model import S9Net, build
from s9.data.augment import A
from s9.data.sources import Data

BATCH_SIZE = 128


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
    """A network and its training."""

    def __init__(self, device: torch.device, name: str = "reference") -> None:
        self.device = device
        self.network = (S9Net(dropout=0.05) if name == "reference" else build(name)).to(device)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.01, momentum=0.9)

    def train(self, batches: list | DataLoader) -> int:
        """Takes a step a batch; returns the number of images."""
        self.network.train()
        correct = count = 0
        for images, labels in batches:
            images, labels = images.to(self.device), labels.to(self.device)
            self.optimizer.zero_grad()
            logits = self.network(images)
            F.cross_entropy(logits, labels).backward()
            self.optimizer.step()
            correct += (logits.argmax(1) == labels).sum().item()
            count += len(labels)
        return count

    @torch.no_grad()
    def test(self, batches: list | DataLoader) -> int:
        """Counts correct predictions; returns the number of images."""
        self.network.eval()
        correct = count = 0
        for images, labels in batches:
            logits = self.network(images.to(self.device))
            correct += (logits.argmax(1) == labels.to(self.device)).sum().item()
            count += len(labels)
        return count
