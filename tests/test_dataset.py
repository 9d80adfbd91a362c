"""dataset.load: where the data come from, and what they are."""

import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_data import assert_same, assert_well_formed, png, write_batches, write_parquet

import dataset
from s9.data import download, sources
from s9.data.cifar10 import CLASSES, MEAN, STD
from s9.data.sources import load
from s9.errors import UserError


def test_real_cifar10_is_whole_with_the_mean_and_deviation_that_the_code_names(cifar10):
    assert_well_formed(cifar10, 50_000, 10_000)
    assert np.bincount(cifar10.train_labels).tolist() == [5_000] * 10
    assert np.bincount(cifar10.test_labels).tolist() == [1_000] * 10
    mean, std = sources.statistics(cifar10.train_images)
    np.testing.assert_array_equal(np.round([mean, std], 4), [MEAN, STD])
    assert (cifar10.name, cifar10.mean, cifar10.std) == ("cifar10", MEAN, STD)


def test_real_cifar10_shows_what_the_labels_say(cifar10):
    assert cifar10.classes == CLASSES
    assert " ".join(CLASSES) == "airplane automobile bird cat deer dog frog horse ship truck"
    # Sky and sea are blue: a wrong order of channels or of labels would upset that.
    blueness = cifar10.test_images[..., 2].mean((1, 2)) - cifar10.test_images[..., 0].mean((1, 2))
    means = np.bincount(cifar10.test_labels, blueness)
    assert {CLASSES[label] for label in np.argsort(means)[-2:]} == {"airplane", "ship"}


def test_real_cifar10_has_no_training_image_in_its_test_set(cifar10):
    train, test = ({image.tobytes() for image in images} for images in (cifar10[2], cifar10[4]))
    assert not train & test


def test_both_layouts_give_the_same_arrays(made, tmp_path, monkeypatch):
    encoded = functools.cache(lambda image: png(np.frombuffer(image, np.uint8).reshape(32, 32, 3)))
    (tmp_path / "parquet").mkdir()
    for split, part, bounds in (
        ("train", 0, slice(20_000)),
        ("train", 1, slice(20_000, None)),
        ("test", 0, slice(None)),
    ):
        images, labels = (getattr(made, f"{split}_{kind}")[bounds] for kind in ("images", "labels"))
        contents = [encoded(image.tobytes()) for image in images]
        write_parquet(tmp_path / "parquet" / f"{split}-{part:05}.parquet", contents, labels.tolist())
    for folder in (write_batches(tmp_path / "batches", made, monkeypatch), tmp_path / "parquet"):
        data = load("cifar10", folder)
        assert_well_formed(data, 50_000, 10_000)
        assert_same(data, made)


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


def test_import_asks_nobody_and_warns_of_nothing():
    repo = Path(dataset.__file__).parent
    command = [sys.executable, "-W", "error::UserWarning", "-c", "import dataset"]
    done = subprocess.run(command, cwd=repo, capture_output=True, encoding="utf-8", timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
