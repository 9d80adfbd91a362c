"""dataset.load: where the data come from, and what they are."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import requests
from made_data import assert_same, assert_well_formed, png, write_batches, write_parquet

import dataset
from s9.data import download, sources
from s9.data.cifar10 import CLASSES, MEAN, STD
from s9.data.sources import load
from s9.errors import UserError


def test_real_cifar10_is_whole(cifar10):
    assert_well_formed(cifar10, 50_000, 10_000)
    assert np.bincount(cifar10.train_labels).tolist() == [5_000] * 10
    assert np.bincount(cifar10.test_labels).tolist() == [1_000] * 10
    assert cifar10.name == "cifar10"


def test_real_cifar10_has_the_mean_and_deviation_that_the_code_names(cifar10):
    # Of all pixels of a channel, from how often each of the 256 values occurs: exact.
    for channel in range(3):
        counts = np.bincount(cifar10.train_images[..., channel].ravel(), minlength=256)
        values = np.arange(256) / 255
        mean = np.average(values, weights=counts)
        std = np.average((values - mean) ** 2, weights=counts) ** 0.5
        assert (round(mean, 4), round(std, 4)) == (MEAN[channel], STD[channel])
    assert (cifar10.mean, cifar10.std) == (MEAN, STD)


def test_real_cifar10_shows_what_the_labels_say(cifar10):
    assert cifar10.classes == CLASSES
    assert " ".join(CLASSES) == "airplane automobile bird cat deer dog frog horse ship truck"
    # Colours that anybody would expect, which a wrong order of channels or of labels would upset.
    colours = np.stack(
        [cifar10.test_images[cifar10.test_labels == label].mean((0, 1, 2)) for label in range(10)]
    )
    blueness = colours[:, 2] - colours[:, 0]
    assert {CLASSES[label] for label in np.argsort(blueness)[-2:]} == {"airplane", "ship"}
    greenness = colours[:, 1] - colours[:, [0, 2]].mean(1)
    assert CLASSES[np.argmax(greenness)] in ("frog", "deer")
    assert CLASSES[np.argmax(colours.sum(1))] == "airplane"


def test_real_cifar10_has_no_training_image_in_its_test_set(cifar10):
    train, test = ({image.tobytes() for image in images} for images in (cifar10[2], cifar10[4]))
    assert not train & test


def test_both_layouts_give_the_same_arrays(made, tmp_path, monkeypatch):
    parquet = tmp_path / "parquet"
    parquet.mkdir()
    for split, parts in (("train", 2), ("test", 1)):
        contents = {}
        images = [
            contents.setdefault(image.tobytes(), png(image)) for image in getattr(made, f"{split}_images")
        ]
        labels = getattr(made, f"{split}_labels").tolist()
        for part in range(parts):
            bounds = slice(part * len(images) // parts, (part + 1) * len(images) // parts)
            name = f"{split}-{part:05}-of-{parts:05}.parquet"
            write_parquet(parquet / name, images[bounds], labels[bounds])
    batches = write_batches(tmp_path / "batches", made, monkeypatch)

    from_batches = load("cifar10", batches)
    assert_well_formed(from_batches, 50_000, 10_000)
    assert_same(from_batches, made)
    from_parquet = load("cifar10", parquet)
    assert_well_formed(from_parquet, 50_000, 10_000)
    assert_same(from_parquet, made)


def chosen(*arguments, **options) -> Path:
    """The folder that load reads, where `folders` stands in for reading one."""
    return load(*arguments, **options).train_images


@pytest.fixture
def folders(monkeypatch, tmp_path):
    folders = {name: tmp_path / name for name in ("given", "environment", "downloaded")}
    monkeypatch.setattr(sources, "read_folder", lambda folder: (folder,) * 4)
    monkeypatch.setattr(download, "cifar10", lambda cache: cache or folders["downloaded"])
    return folders


@pytest.mark.parametrize("name", ["auto", "cifar10"])
def test_order_of_sources(folders, monkeypatch, tmp_path, name):
    assert chosen(name) == folders["downloaded"]
    assert chosen(name, cache=tmp_path) == tmp_path
    monkeypatch.setenv("CIFAR10_DIR", "")
    assert chosen(name) == folders["downloaded"]
    monkeypatch.setenv("CIFAR10_DIR", str(folders["environment"]))
    assert chosen(name) == folders["environment"]
    assert chosen(name, folders["given"]) == chosen(name, str(folders["given"])) == folders["given"]
    for home in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(home, str(tmp_path))
    assert chosen(name, "~/given") == folders["given"]


def test_auto_goes_on_with_digits_and_says_so_when_nothing_can_be_reached(capsys, tmp_path):
    with pytest.raises(UserError, match="could not be downloaded"):
        load("cifar10", cache=tmp_path)  # the real sources, offline
    capsys.readouterr()
    assert load("auto", cache=tmp_path).name == "digits"
    out = capsys.readouterr().out
    assert "could not be downloaded" in out
    assert "!" * 40 in out and "DIGITS" in out and "say nothing about CIFAR-10" in out


def test_tests_have_no_network():
    for url in ("https://www.cs.toronto.edu/", "http://192.0.2.1/"):
        with pytest.raises(requests.ConnectionError):
            requests.get(url, timeout=30)
        with (
            pytest.raises(requests.ConnectionError, match="tests are offline"),
            requests.Session() as session,
        ):
            session.trust_env = False  # past the switched-off proxy
            session.get(url, timeout=30)


def test_import_asks_nobody_and_warns_of_nothing():
    repo = Path(dataset.__file__).parent
    command = [sys.executable, "-W", "error::UserWarning", "-c", "import dataset"]
    done = subprocess.run(command, cwd=repo, capture_output=True, encoding="utf-8", timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
