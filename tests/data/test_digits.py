"""The bundled digits, and what every Data can do: a validation set, a fingerprint."""

import hashlib
import re

import numpy as np
import pytest
import sklearn.datasets
from made_data import ARRAYS, assert_well_formed, small

from s9.data.sources import Data, load


@pytest.fixture(scope="module")
def digits() -> Data:
    return load("digits")


def test_digits(digits):
    assert_well_formed(digits, 1_437, 360)
    assert digits.name == "digits"
    assert digits.classes == tuple(f"digit {digit}" for digit in range(10))
    for images in (digits.train_images, digits.test_images):
        assert (images.min(), images.max()) == (0, 255)
        assert (images[..., :1] == images).all()  # grey
    pixels = digits.train_images / 255
    np.testing.assert_allclose(digits.mean, pixels.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(digits.std, pixels.std((0, 1, 2)), rtol=1e-12)


def test_digits_split_is_fixed_stratified_and_without_overlap(digits, monkeypatch):
    """Seen on digits that show their own number, in base 17, in their four quarters."""
    bunch = sklearn.datasets.load_digits()
    numbers = np.arange(len(bunch.target))
    quarters = np.stack([numbers // 17**power % 17 for power in range(4)], 1).reshape(-1, 2, 2)
    bunch.images = quarters.repeat(4, axis=1).repeat(4, axis=2).astype(float)
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: bunch)
    numbered = load("digits")
    splits = []
    for images, labels in (numbered[2:4], numbered[4:6]):
        quarters = np.round(images[:, 8::16, 8::16, 0] / (255 / 16)).astype(int).reshape(-1, 4)
        splits.append(quarters @ 17 ** np.arange(4))
        np.testing.assert_array_equal(bunch.target[splits[-1]], labels)
    assert sorted(np.concatenate(splits)) == numbers.tolist()
    np.testing.assert_array_equal(numbered.train_labels, digits.train_labels)

    shares = np.bincount(digits.test_labels) / np.bincount(bunch.target)
    assert (abs(shares - 0.2) < 0.005).all()
    content = b"".join(split.astype("<i8").tobytes() for split in splits)
    assert hashlib.sha256(content).hexdigest()[:16] == "c2c37eddf53c5760"


def test_validation_holds_out_the_last_training_images(made):
    held_out = made.validation()
    assert len(held_out.train_images) == 45_000 and len(held_out.test_images) == 5_000
    np.testing.assert_array_equal(held_out.train_images, made.train_images[:45_000])
    np.testing.assert_array_equal(held_out.train_labels, made.train_labels[:45_000])
    np.testing.assert_array_equal(held_out.test_images, made.train_images[45_000:])
    np.testing.assert_array_equal(held_out.test_labels, made.train_labels[45_000:])
    assert not np.shares_memory(held_out.test_images, made.test_images)
    assert len(made.train_images) == 50_000
    assert held_out.fingerprint() != made.fingerprint()
    few = small(200)
    np.testing.assert_array_equal(few.validation().test_images, few.train_images[-20:])


def test_fingerprint_sees_every_pixel_label_and_the_order():
    data = small(20)
    seen = {data.fingerprint()}
    assert re.fullmatch("[0-9a-f]{16}", data.fingerprint())
    assert small(20).fingerprint() in seen
    for name in ARRAYS:
        array = getattr(data, name)
        for position in (0, -1):
            changed = array.copy()
            changed.reshape(-1)[position] ^= 1
            seen.add(data._replace(**{name: changed}).fingerprint())
        seen.add(data._replace(**{name: np.roll(array, 1, axis=0)}).fingerprint())
    assert len(seen) == 1 + 4 * 3
    views = data._replace(train_images=np.asfortranarray(data.train_images))
    assert views.fingerprint() == data.fingerprint()  # the same images, otherwise laid out in memory
