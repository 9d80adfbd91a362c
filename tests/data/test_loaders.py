"""The loaders: every image once an epoch, and the same run again from the same seed, on any machine.

That whole batches are augmented as train_transform augments single images: test_augment.py.
"""

import io
import itertools
import os
import pickle
from multiprocessing.reduction import ForkingPickler

import albumentations as A
import numpy as np
import pytest
import torch
from made_data import the_three
from torch.utils.data import DataLoader, Dataset

import dataset
from dataset import Images, default_workers, loaders, train_transform
from s9.data.batches import Batches
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


def test_cifar10_at_128_is_391_batches():
    images = np.zeros((50_000, 32, 32, 3), np.uint8)
    labels = np.zeros(50_000, np.int64)
    train, test = loaders(Data("cifar10", CLASSES, images, labels, images[:10_000], labels[:10_000]))
    assert (len(train), len(test)) == (391, 40)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_image_comes_once_an_epoch(workers):
    for epoch in run(workers=workers):
        assert sorted(order(epoch)) == list(range(TRAIN))


def test_every_epoch_and_seed_has_an_order_of_its_own(reference):
    orders = [order(epoch) for epoch in reference + run(seed=1) + run(epochs=(3,))]
    for first, second in itertools.combinations([*orders, list(range(TRAIN))], 2):
        assert np.mean(np.equal(first, second)) < 0.05  # as disorder would have it: 1 in 300


def test_an_image_keeps_its_label(reference):
    """Told by images of one grey each, the hole aside."""
    greys = np.arange(TEST) % 256
    images = np.tile(greys[:, None, None, None].astype(np.uint8), (1, 32, 32, 3))
    for epoch in run(data=make_data(images), workers=1):
        for tensors, labels in epoch:
            pixels = (tensors.permute(0, 2, 3, 1) * torch.tensor(STD) + torch.tensor(MEAN)) * 255
            # A hole covers at most three of the corners, and only with its own colour.
            corners = pixels[:, ::31, ::31].reshape(-1, 4, 3).round()
            holes = (corners == torch.tensor([125.0, 123.0, 114.0])).all(2)
            expected = torch.from_numpy(greys)[labels]
            assert ((corners == expected[:, None, None]).all(2) | holes).all()
            assert (~holes).any(1).all()


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_seed_repeats_a_run_exactly_with_any_workers(reference, workers):
    torch.manual_seed(workers)  # nothing else that is random has a part in it
    np.random.seed(workers)
    assert_equal(run(workers=workers), reference)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_sees_what_an_uninterrupted_one_sees(reference, workers):
    assert_equal(run(epochs=(2,), workers=workers), reference[1:])


def test_an_epoch_that_was_broken_off_can_start_again(reference):
    train, _ = loaders(DATA, BATCH, workers=2)
    train.set_epoch(1)
    next(iter(train))
    assert_equal([list(train)], reference[:1])


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_take_none_of_the_random_numbers_of_others(workers):
    """Dropout's, say, which would depend on the number of workers, and on whether a run was resumed."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    run(workers=workers)
    list(loaders(DATA, BATCH, workers=workers)[1])
    assert torch.equal(torch.get_rng_state(), before)


SAME = np.stack([DATA.train_images[0]] * TEST)


def always_shifted(transform: A.Compose) -> A.Compose:
    """With angles and scales from a range, each image comes out unlike any other."""
    the_three(transform)[1].p = 1.0
    return transform


@pytest.mark.parametrize("workers", [0, 2])
def test_no_two_samples_share_their_random_numbers(workers):
    """One image, 300 times, in two epochs: 600 different ones."""
    train, _ = loaders(make_data(SAME), BATCH, 0, workers)
    always_shifted(train.source.dataset.transform)
    seen = []
    for epoch in (1, 2):
        train.set_epoch(epoch)
        seen += [image.numpy().tobytes() for images, _ in train for image in images]
    assert len(set(seen)) == len(seen) == 2 * TRAIN


class Plain(Dataset):
    """What most copies of this assignment have."""

    def __init__(self, transform: A.Compose) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return TRAIN

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(image=SAME[index])["image"]


@pytest.mark.parametrize("seed", [None, 0])
def test_albumentations_left_alone_repeats_itself(seed):
    """Why there is Batches; if this fails one day, it can go. Two workers' batches alternate."""
    transform = always_shifted(train_transform())
    transform.set_random_seed(seed)
    loader = DataLoader(Plain(transform), batch_size=50, num_workers=2)
    first, second = list(loader), list(loader)
    assert torch.equal(first[0], first[1])
    assert_equal([zip(first, first, strict=True)], [zip(second, second, strict=True)])


@pytest.mark.parametrize("workers", [0, 2])
def test_test_images_come_as_they_are_in_their_order(workers):
    _, test = loaders(DATA, BATCH, seed=5, workers=workers)
    for _ in range(2):
        batches = list(test)
        assert order(batches) == list(range(TEST))
        pixels = torch.cat([images for images, _ in batches]).permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(pixels, (DATA.test_images / 255 - MEAN) / STD, atol=1e-5)


def test_loaders_normalise_by_the_data_sets_own_figures():
    data = DATA._replace(mean=(0.2, 0.3, 0.4), std=(0.5, 0.6, 0.7))
    train, test = loaders(data, BATCH, workers=0)
    images, _ = next(iter(test))
    expected = (DATA.test_images[:250] / 255 - data.mean) / data.std
    np.testing.assert_allclose(images.permute(0, 2, 3, 1).numpy(), expected, atol=1e-5)
    assert the_three(train.source.dataset.transform)[2].fill == (51, 76, 102)


def test_the_arrays_stay_as_they_are():
    before = DATA.fingerprint()
    run(), list(loaders(DATA, BATCH, workers=0)[1])
    assert DATA.fingerprint() == before


def test_bytes_travel_to_the_device_not_floats():
    train, _ = loaders(DATA, BATCH, workers=1)
    images, labels = next(iter(train.source))
    assert (images.dtype, images.shape) == (np.uint8, (BATCH, 32, 32, 3))
    assert labels.dtype == np.int64


def test_images_can_be_sent_to_a_worker_that_starts_from_nothing():
    """As on macOS and Windows: what is pickled names shared memory, it does not hold the images."""
    images = Images(DATA.train_images, DATA.train_labels, train_transform())
    batch = next(iter(Batches(TRAIN, BATCH, seed=0, shuffle=True)))
    sent = io.BytesIO()
    ForkingPickler(sent).dump(images)
    assert len(sent.getvalue()) < 100_000 < DATA.train_images.nbytes
    received = pickle.loads(sent.getvalue())
    for expected, array in zip(images[batch], received[batch], strict=True):
        np.testing.assert_array_equal(array, expected)


def test_seeds_may_be_large():
    assert len(run(epochs=(1,), seed=2**63 - 1)[0]) == 5


@pytest.mark.parametrize("batch_size", [0, -1])
def test_bad_batch_sizes(batch_size):
    with pytest.raises(UserError, match=f"^batch size must be at least 1, got {batch_size}$"):
        loaders(DATA, batch_size, workers=0)


def test_batch_sizes_at_the_limits():
    for batch_size, count in ((1, TRAIN), (TRAIN, 1), (TRAIN + 1, 1)):
        assert len(loaders(DATA, batch_size, workers=0)[0]) == count


def test_bad_workers():
    with pytest.raises(UserError, match=r"workers must be in 0\.\.256, got -1"):
        loaders(DATA, BATCH, workers=-1)


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (2, 1), (3, 2), (9, 8), (10, 8), (256, 8)])
def test_default_workers_beside_a_gpu(monkeypatch, cores, expected):
    gpu = torch.device("cuda")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert default_workers(gpu) == expected
    # Where there is no such function (macOS, Windows):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert default_workers(gpu) == expected
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert default_workers(gpu) == 1


def test_a_training_cpu_has_no_workers_beside_it():
    assert default_workers(torch.device("cpu")) == 0


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than this machine has cores
def test_number_of_workers(monkeypatch):
    monkeypatch.setattr(dataset, "default_workers", lambda device: 7)
    for asked, expected in ((None, 7), (0, 0), (1, 1), (3, 3)):
        assert loaders(DATA, BATCH, workers=asked)[0].source.num_workers == expected
