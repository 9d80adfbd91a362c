"""What holds for any network, image and batch: receptive fields, augmentations and loaders at random."""

import numpy as np
import pytest
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st
from networks import Branches, Residual, assert_exact
from torch import nn

from dataset import train_transform
from s9.data.augment import augment, reseed

SIDES = st.integers(1, 5) | st.tuples(st.integers(1, 5), st.integers(1, 5))


@st.composite
def convolutions(draw, stride=True):
    """One of any shape; without a stride, one that keeps the size of the map."""
    kernel, dilation = draw(SIDES), draw(st.integers(1, 3))
    if not stride:
        return nn.Conv2d(3, 3, kernel, padding="same", dilation=dilation)
    return nn.Conv2d(3, 3, kernel, draw(st.integers(1, 3)), draw(st.integers(0, 3)), dilation)


def pairs_of(blocks):
    """Blocks one after the other, around a sum, and side by side: any of them in any other."""
    return st.one_of(
        st.lists(blocks, min_size=1, max_size=2).map(lambda parts: nn.Sequential(*parts)),
        st.builds(Residual, blocks, st.sampled_from(["module", "function", "in place"])),
        st.builds(Branches, blocks, blocks),
    )


NESTED = st.recursive(convolutions(stride=False), pairs_of, max_leaves=4)
"""Residual networks whose branches are residual networks again."""
NETWORKS = st.lists(NESTED | convolutions(), min_size=1, max_size=3).map(lambda parts: nn.Sequential(*parts))


@examples(30)
@given(NETWORKS)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_a_nested_network_sees_what_the_gradient_reaches(network):
    assert_exact(network)


@st.composite
def images(draw):
    """A uint8 image (32, 32, 3): noise between two values of each channel, or flat where they are one."""
    low, high = (draw(st.tuples(*[st.integers(0, 255)] * 3)) for _ in range(2))
    noise = np.random.default_rng(draw(st.integers(0, 2**32))).random((32, 32, 3))
    return (np.minimum(low, high) + noise * np.abs(np.subtract(high, low))).round().astype(np.uint8)


CHANNELS = st.tuples(*[st.floats(0, 1)] * 3)


@examples(60)
@given(st.lists(images(), min_size=1, max_size=4), CHANNELS, st.floats(0, 1), st.integers(0, 2**64 - 1))
def test_a_batch_is_augmented_within_its_own_images_and_again_by_seed(batch, mean, probability, seed):
    transform = train_transform(mean, (0.2, 0.2, 0.2), probability)
    results = []
    for _ in range(2):
        changed = np.stack(batch)
        reseed(transform, seed)
        augment(changed, transform)
        results.append(changed)
    np.testing.assert_array_equal(*results)
    assert results[0].dtype == np.uint8 and results[0].shape == (len(batch), 32, 32, 3)
    hole = np.round(255 * np.array(mean))
    for image, changed in zip(batch, results[0], strict=True):
        assert (changed.min((0, 1)) >= np.minimum(image.min((0, 1)), hole)).all()
        assert (changed.max((0, 1)) <= np.maximum(image.max((0, 1)), hole)).all()
