"""Data sets of 3, 17 and 100 classes, from folders of pictures and CIFAR-100, through every command."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from made_data import write_torchvision
from PIL import Image
from small import SmallNet
from torchvision.datasets import CIFAR100

import predict
import train
from model import NETWORKS
from s9 import records
from s9.data import sources
from tools import audit, export_onnx


def write_pictures(folder, classes, count, kinds=("png", "jpg")):
    """Noise around a colour for each class, in several sizes and formats, some in a subfolder."""
    random = np.random.default_rng(0)
    for label, name in enumerate(classes):
        (folder / name / "more").mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 60, (30 + number, 40, 3), np.uint8)
            pixels[..., label % 3] += 120
            place = folder / name / ("more" if number % 2 else "")
            Image.fromarray(pixels).save(place / f"{number}.{kinds[number % len(kinds)]}")
    return folder


def write_cifar100(root, monkeypatch):
    """Torchvision's layout with two training images and a test image of each class."""
    contents = {}
    for split, count in (("train", 200), ("test", 100)):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 3072), np.uint8)
        contents[split] = {"data": pixels, "fine_labels": [index % 100 for index in range(count)]}
    contents["meta"] = {"fine_label_names": [f"class {label}" for label in range(100)]}
    return write_torchvision(root, CIFAR100, contents, monkeypatch)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(command, argument, ...) calls a command; --model small is a network of four layers."""
    monkeypatch.setitem(NETWORKS, "small", SmallNet)
    monkeypatch.chdir(tmp_path)
    return lambda command, *arguments: command.main([str(argument) for argument in arguments])


def trained(run, *options, out="run"):
    how = ("--epochs", 2, "--batch-size", 8, "--learning-rate", 0.02, "--device", "cpu", "--workers", 0)
    run(train, "--model", "small", "--precision", "float32", *how, *options, "--out", out)
    return out


@pytest.mark.parametrize("classes", [3, 17, 100])
def test_any_number_of_classes_goes_through_every_command(classes, run, tmp_path, monkeypatch, capsys):
    names = tuple(f"class {label:02}" for label in range(classes))
    if classes == 100:
        names = tuple(f"class {label}" for label in range(100))
        options = ("--dataset", "cifar100", "--data-dir", write_cifar100(tmp_path / "data", monkeypatch))
    elif classes == 17:
        for split, count in (("train", 3), ("test", 1)):
            write_pictures(tmp_path / "cifar10" / split, names, count)
        options = ("--dataset", "./cifar10")
    else:
        options = ("--dataset", write_pictures(tmp_path / "cifar10", names, 10))
    trained(run, *options)
    record = records.read(tmp_path / "run")
    facts = record.facts["data"]
    assert facts["classes"] == list(names)
    assert (facts["train"], facts["test"]) == {3: (24, 6), 17: (51, 17), 100: (200, 100)}[classes]
    assert record.settings.dataset == ("cifar100" if classes == 100 else "folder-cifar10")
    capsys.readouterr()
    run(train, "--evaluate", "run", *options[2:])
    assert capsys.readouterr().out.strip() == record.log.strip().splitlines()[-1]

    write_pictures(tmp_path / "photos", ["any"], 1)
    run(predict, "photos/any", "--run", "run", "--json")
    (answer,) = json.loads(capsys.readouterr().out)["predictions"]
    assert set(answer["probabilities"]) == set(names)
    run(export_onnx, "--run", "run", "--out", "net.onnx")
    metadata = {entry.key: entry.value for entry in onnx.load("net.onnx").metadata_props}
    assert json.loads(metadata["classes"]) == list(names) and json.loads(metadata["std"]) == facts["std"]
    assert audit.print_audit(record) == 1
    assert f"on {record.settings.dataset}'s test set" in capsys.readouterr().out


def test_a_class_that_may_be_listed_but_not_entered_is_one_line(run, tmp_path, refused, monkeypatch):
    folder = write_pictures(tmp_path / "mine", "abc", 10)
    is_file = Path.is_file

    def forbidden(path):
        if path.parent.name == "b":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", forbidden)
    line = refused(train, "--dataset", folder)
    assert f": {folder / 'b'}/" in line and line.endswith(".png cannot be read (Permission denied)\n")


@pytest.mark.parametrize("place", [".", "b", "b/more"])
def test_a_folder_that_may_not_be_listed_is_one_line(run, tmp_path, refused, monkeypatch, place):
    folder, scandir = write_pictures(tmp_path / "mine", "abc", 10), os.scandir

    def forbidden(path):
        if Path(path) == folder / place:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    monkeypatch.setattr(os, "listdir", lambda path: [entry.name for entry in forbidden(path)])
    assert f"{folder / place} cannot be read (Permission denied)" in refused(train, "--dataset", folder)


def test_a_folder_is_read_the_same_each_time_and_known_by_its_pictures(run, tmp_path, refused):
    folder = write_pictures(tmp_path / "mine", "abc", 10)
    first, again = (sources.load(str(folder)) for _ in range(2))
    assert first.fingerprint() == again.fingerprint()
    assert np.bincount(first.test_labels).tolist() == [2, 2, 2]
    assert sorted(set(first.train_labels[:8].tolist())) == [0, 1, 2]
    pixels = first.train_images / 255
    np.testing.assert_allclose(first.mean, pixels.mean((0, 1, 2)))
    np.testing.assert_allclose(first.std, pixels.std((0, 1, 2)))
    trained(run, "--dataset", folder, "--validation")
    folder.rename(tmp_path / "moved")
    for options in ([], ["--data-dir", "x" * 300]):
        assert "name their folder (--data-dir)" in refused(train, "--evaluate", "run", *options)
    run(train, "--evaluate", "run", "--data-dir", "moved")
    (tmp_path / "moved" / "a" / "0.png").unlink()
    assert "holds other pictures" in refused(train, "--evaluate", "run", "--data-dir", "moved")


@pytest.mark.parametrize(
    ("classes", "change", "message"),
    [
        ([], None, "holds no class"),
        (["a"], None, "holds only the class 'a'"),
        (["a", "b"], lambda root: (root / "c").mkdir(), "c holds 0 pictures: it needs at least 2"),
        (
            ["a", "b"],
            lambda root: (root / "a" / "x.png").write_bytes(b"no"),
            "1 of 2 pictures cannot be used, the first: ",
        ),
        (["a", "A"], None, "has 2 classes named 'a', but for case"),
    ],
)
def test_a_folder_that_is_no_data_set_is_refused_in_one_line(refused, tmp_path, classes, change, message):
    folder = write_pictures(tmp_path / "mine", classes, 2)
    folder.mkdir(exist_ok=True)
    if change:
        change(folder)
    assert message in refused(train, "--dataset", folder, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_class_in_the_test_set_alone_is_refused(refused, tmp_path):
    write_pictures(tmp_path / "train", ["a", "b"], 1)
    write_pictures(tmp_path / "test", ["a", "c"], 1)
    assert "test has the class 'c'" in refused(train, "--dataset", tmp_path)
