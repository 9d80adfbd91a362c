"""The loaders: every image once an epoch, and the same run again from the same seed, on any machine.

That whole batches are augmented as train_transform augments single images: test_augment.py.
"""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import albumentations as A
import numpy as np
import pytest
import torch
from made_data import the_three

from dataset import default_workers, loaders
from s9.data.augment import reseed
from s9.data.cifar10 import CLASSES, MEAN, STD
from s9.data.sources import Data
from s9.errors import UserError

TRAIN, TEST, BATCH = 300, 520, 64


def make_data(images: np.ndarray | None = None) -> Data:
    """Labels are the images' own numbers: they tell which images a batch holds."""
    if images is None:
        images = np.random.default_rng(0).integers(0, 256, (TEST, 32, 32, 3), np.uint8)
    numbers = np.arange(TEST)
    return Data("cifar10", CLASSES, images[:TRAIN], numbers[:TRAIN], images, numbers)


DATA = make_data()


def run(epochs=(1, 2), seed: int = 0, workers: int = 0, data: Data = DATA) -> list:
    """The training batches of some epochs, as lists of (images, labels), one list an epoch."""
    train, _ = loaders(data, BATCH, seed, workers)
    result = []
    for epoch in epochs:
        train.set_epoch(epoch)
        result.append(list(train))
    return result


def order(epoch: list) -> list[int]:
    return torch.cat([labels for _, labels in epoch]).tolist()


def assert_equal(first: list, second: list) -> None:
    for epoch, other in zip(first, second, strict=True):
        for (images, labels), (other_images, other_labels) in zip(epoch, other, strict=True):
            assert torch.equal(images, other_images) and torch.equal(labels, other_labels)


@pytest.fixture(scope="module")
def reference() -> list:
    return run()


def test_batches_are_as_the_module_promises(reference):
    train, test = loaders(DATA, BATCH, workers=0)
    for loader, sizes in ((train, [64, 64, 64, 64, 44]), (test, [250, 250, 20])):
        batches = list(loader)
        assert len(loader) == len(batches)
        assert [len(labels) for _, labels in batches] == sizes
        for images, labels in batches:
            assert images.shape == (len(labels), 3, 32, 32) and images.dtype == torch.float32
            assert labels.shape == (len(labels),) and labels.dtype == torch.int64
            assert images.is_contiguous(memory_format=torch.channels_last)


def test_every_epoch_and_seed_has_an_order_of_its_own(reference):
    orders = [order(epoch) for epoch in reference + run(seed=1) + run(epochs=(3,))]
    for first, second in itertools.combinations([*orders, list(range(TRAIN))], 2):
        assert np.mean(np.equal(first, second)) < 0.05  # as disorder would have it: 1 in 300


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_seed_repeats_a_run_exactly_with_any_workers(reference, workers):
    torch.manual_seed(workers)  # nothing else that is random has a part in it
    np.random.seed(workers)
    before = torch.get_rng_state()
    assert_equal(run(workers=workers), reference)
    assert_equal(run(epochs=(2,), workers=workers), reference[1:])  # as when it is resumed
    assert all(sorted(order(epoch)) == list(range(TRAIN)) for epoch in reference)
    list(loaders(DATA, BATCH, workers=workers)[1])
    # Nor does it take numbers of others: Dropout would depend on the workers, and on resuming.
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 2])
def test_no_two_samples_share_their_random_numbers(workers):
    """One image, 300 times, in two epochs, always shifted: 600 different ones."""
    train, _ = loaders(make_data(np.stack([DATA.train_images[0]] * TEST)), BATCH, 0, workers)
    the_three(train.dataset.transform)[1].p = 1.0
    seen = set()
    for epoch in (1, 2):
        train.set_epoch(epoch)
        seen |= {image.numpy().tobytes() for images, _ in train for image in images}
    assert len(seen) == 2 * TRAIN


def test_test_images_come_in_their_order_normalised_by_the_data_sets_own_figures():
    data = DATA._replace(mean=(0.2, 0.3, 0.4), std=(0.5, 0.6, 0.7))
    train, test = loaders(data, BATCH, seed=5, workers=0)
    assert the_three(train.dataset.transform)[2].fill == (51, 76, 102)
    for _ in range(2):
        batches = list(test)
        assert order(batches) == list(range(TEST))
        pixels = torch.cat([images for images, _ in batches]).permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(pixels, (DATA.test_images / 255 - data.mean) / data.std, atol=1e-5)


def test_no_copy_from_memory_that_is_not_pinned_goes_on_after_its_call(monkeypatch):
    """A copy to an Apple GPU would read freed memory: https://github.com/pytorch/pytorch/issues/189690."""
    copies, to = [], torch.Tensor.to

    def noted(tensor, *given, **named):
        copies.append(named)
        return to(tensor, *given, **named)

    monkeypatch.setattr(torch.Tensor, "to", noted)
    run(epochs=(1,))
    assert copies and not any(named.get("non_blocking") for named in copies)


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (4, 3), (256, 8)])
def test_default_workers(monkeypatch, cores, expected):
    assert default_workers(torch.device("cpu")) == 0
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert default_workers(torch.device("cuda")) == expected
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS and Windows
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert default_workers(torch.device("cuda")) == expected


PLANES = np.ascontiguousarray(DATA.train_images.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (PLANES.transpose(0, 2, 3, 1), DATA.train_labels.astype(np.uint16)),
        (DATA.train_images[::-1].copy()[::-1], DATA.train_labels.astype(">i4")),
    ],
    ids=["planes, as SVHN has them", "backwards, big-endian"],
)
def test_any_memory_layout_gives_the_same_batches(reference, images, labels):
    images.flags.writeable = False
    assert_equal(run(data=DATA._replace(train_images=images, train_labels=labels)), reference)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_images": PLANES}, r"images must be .*, got uint8 \(300, 3, 32, 32\)"),
        ({"train_images": DATA.train_images / 255}, "images must be uint8 .* got float64"),
        ({"train_labels": DATA.train_labels[:9]}, r"labels must be 300 integers, got int64 \(9,\)"),
        ({"train_labels": DATA.train_labels / 1}, "labels must be 300 integers, got float64"),
        ({"batch_size": 0}, "batch size must be at least 1, got 0"),
        ({"workers": -1}, r"workers must be in 0\.\.256, got -1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"transform": torch.nn.Identity()}, r"must be an albumentations.Compose with p=1, got Identity\(\)"),
        ({"transform": A.Compose([A.RandomCrop(28, 28)])}, r"must return uint8 .* got uint8 \(28, 28, 3\)"),
        ({"transform": A.Compose([A.ToFloat()])}, "must return uint8 .* got float32"),
        ({"transform": A.Compose([A.Normalize((0.5,) * 3, STD)])}, "Normalize must have the data's mean"),
        (
            {"transform": A.Compose([A.Normalize(MEAN, STD, 1.0)])},
            "Normalize must .*, max_pixel_value=255 and",
        ),
        ({"transform": A.Compose([A.Normalize(MEAN, STD, p=0.5)])}, "Normalize must have .* and p=1"),
        ({"transform": A.Compose([A.Normalize((0.5,) * 4, STD)])}, "Normalize must have the data's mean"),
        ({"transform": A.Compose([A.Normalize(MEAN, STD), A.HorizontalFlip()])}, "must be the last steps"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    images, labels = (options.pop(name, getattr(DATA, name)) for name in ("train_images", "train_labels"))
    with pytest.raises(UserError, match=message):
        loaders(DATA._replace(train_images=images, train_labels=labels), **{"workers": 0} | options)


def test_any_albumentations_are_applied_image_by_image():
    """The padded crop that most recipes for CIFAR-10 have; steps that change the size in between."""
    steps = [A.PadIfNeeded(40, 40), A.HorizontalFlip(), A.RandomCrop(32, 32), A.Normalize(MEAN, STD)]
    transform = A.Compose([*steps, A.ToTensorV2()])
    train, _ = loaders(DATA, BATCH, seed=0, workers=0, transform=transform)
    ((batch_seed, indices), *_), (images, labels), *_ = train.sampler, *train
    reseed(transform, batch_seed)
    expected = [transform(image=DATA.train_images[index])["image"] for index in indices]
    torch.testing.assert_close(images, torch.stack(expected), rtol=0, atol=1e-5)
    assert labels.tolist() == indices


SPAWNED = """
import multiprocessing
import torch
import test_loaders

def refuse(*_):
    raise RuntimeError("unable to write to file </torch_1>: No space left on device (28)")

if __name__ == "__main__":
    torch.UntypedStorage._share_fd_cpu_ = torch.UntypedStorage._share_filename_cpu_ = refuse
    for method in ("spawn", "forkserver"):
        multiprocessing.set_start_method(method, force=True)
        test_loaders.assert_equal(test_loaders.run((1,), workers=1), test_loaders.run((1,)))
        print(method)
"""


def test_workers_that_start_from_nothing_need_no_shared_memory(tmp_path):
    """As on macOS, on Windows and in Python 3.14; Docker gives a container 64 MB of /dev/shm."""
    (tmp_path / "program.py").write_text(SPAWNED, encoding="utf-8")
    here = Path(__file__).parent
    paths = os.pathsep.join(str(path) for path in (here, here.parent, here.parent.parent))
    command = [sys.executable, tmp_path / "program.py"]
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stdout) == (0, "spawn\nforkserver\n"), done.stderr
