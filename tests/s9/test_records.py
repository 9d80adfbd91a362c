import os

import pytest
import safetensors.torch
import torch
from made_runs import FACTS

from model import BestNet, build
from s9 import files, records
from s9.engine import checkpoint
from s9.errors import UserError
from s9.records import Epoch, Run
from s9.settings import Settings

HISTORY = [Epoch(1, 0.008, 1.7162, 33.76, 1.5116, 44.62, 22.3), Epoch(2, 0.2, 1.25, 50.0, 1.0, 60.5, 21.9)]


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    return Run(folder, Settings(epochs=2), FACTS, HISTORY, "Epoch 1\n…\n")


def test_a_run_reads_back_as_it_was_written(run):
    network = build("reference")
    records.write(run, network)
    assert records.read(run.folder) == run
    files = {"settings.json", "history.csv", "log.txt", "weights.safetensors"}
    assert {path.name for path in run.folder.iterdir()} == files
    assert (run.folder / records.WEIGHTS).stat().st_size < 1_000_000
    assert (run.folder / records.HISTORY).read_text(encoding="utf-8") == (
        "epoch,learning_rate,train_loss,train_accuracy,test_loss,test_accuracy,seconds\n"
        "1,0.008000,1.7162,33.76,1.5116,44.62,22.3\n"
        "2,0.200000,1.2500,50.00,1.0000,60.50,21.9\n"
    )
    other = build("reference")
    records.load_weights(run.folder, other)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_a_failed_replacement_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "log.txt"
    files.replace(path, b"old")

    def full_disk(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        files.replace(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["settings.json", "checkpoint.pt", "checkpoint-previous.pt"])
def test_a_folder_that_holds_part_of_a_run_is_not_claimed(tmp_path, name):
    """The repository's own runs, and one that was killed in its first epoch."""
    (tmp_path / name).write_bytes(b"hours of work")
    with pytest.raises(UserError, match="already holds a run: choose another folder"):
        records.create_run(Settings(), tmp_path)
    assert (tmp_path / name).read_bytes() == b"hours of work"


def test_a_new_run_takes_a_name_that_nothing_has(tmp_path):
    """Neither a file nor the weights that are all that is left of a run."""
    (tmp_path / "reference-cifar10-1").touch()
    (tmp_path / "reference-cifar10-2").mkdir()
    (tmp_path / "reference-cifar10-3").symlink_to("nowhere")
    folders = [records.create_run(Settings(), runs=tmp_path).name for _ in range(2)]
    assert folders == ["reference-cifar10-4", "reference-cifar10-5"]


def test_only_a_run_of_the_same_settings_is_resumed(run):
    records.write(run, build("reference"))
    with pytest.raises(UserError, match=r"nothing to resume in .*: it holds no checkpoint"):
        records.run_to_resume(run.settings, run.folder)
    (run.folder / records.CHECKPOINT).touch()
    (run.folder / ".log.txt-7-tmp").touch()  # of a process that was killed while it wrote
    (run.folder / ".folder-tmp").mkdir()  # not of this program
    assert records.run_to_resume(run.settings, runs=run.folder.parent) == run.folder
    assert [path.name for path in run.folder.glob(".*")] == [".folder-tmp"]
    with pytest.raises(
        UserError, match=r"other settings \(dataset cifar10 there, digits here; epochs 2 there"
    ):
        records.run_to_resume(Settings(epochs=3, dataset="digits"), run.folder)
    (run.folder / records.SETTINGS).unlink()  # As if killed in the first epoch, between two renames.
    (run.folder / records.CHECKPOINT).rename(run.folder / checkpoint.PREVIOUS)
    assert records.last_saved(run.folder.parent) == run.folder


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write to .*file/run \(Not a directory"):
        records.create_run(Settings(), tmp_path / "file" / "run")
    with pytest.raises(UserError, match=r"cannot write to .*file/reference-cifar10-1 \(Not a directory"):
        records.create_run(Settings(), runs=tmp_path / "file")
    with pytest.raises(UserError, match=r"cannot write to .*file \(File exists"):
        records.create_run(Settings(), tmp_path / "file")


def test_the_last_run_is_the_one_saved_last_or_there_is_none(run):
    runs = run.folder.parent
    with pytest.raises(UserError, match="holds no run: train one first"):
        records.last_run(runs)
    records.write(run, build("reference"))
    assert records.last_run(runs) == run
    assert run.summary() == f"{run.folder}: reference on cifar10, 2 of 2 epochs, test accuracy 60.50%"
    assert run._replace(history=HISTORY[:1]).summary().endswith(f"pass --resume --out {run.folder}")
    (runs / "newer").mkdir()
    (runs / "newer" / records.CHECKPOINT).touch()
    with pytest.raises(UserError, match="newer has no finished epoch: to continue it"):
        records.last_run(runs)


class SameWeights(BestNet):
    """Has weights of the same names and shapes."""


def narrower():
    network = BestNet()
    network.O[-1] = torch.nn.Conv2d(24, 10, 1, bias=False)
    return network


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (SameWeights, "holds the weights of SameWeights, not of BestNet: name a run of BestNet"),
        (narrower, "holds the weights of another BestNet than the one here"),
    ],
)
def test_weights_of_another_network_are_refused_and_change_nothing(run, other, message):
    records.write(run, other())
    network = BestNet()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(UserError, match=message):
        records.load_weights(run.folder, network)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ({"data": FACTS["data"] | {"train": None}}, "its numbers of images are none"),
        ({"data": FACTS["data"] | {"test": -1}}, "its numbers of images are none"),
        ({"versions": {"torch": 2}}, "its versions are not text"),
        ({"data": FACTS["data"] | {"folder": 5}}, "its folder of pictures is not text"),
        ({"versions": None}, "no attribute 'values'"),
    ],
)
def test_facts_of_another_type_are_refused(run, damage, problem):
    """The pages and the audit compute with them."""
    records.write(run._replace(facts=FACTS | damage), build("reference"))
    with pytest.raises(UserError, match=rf"settings.json is not the record of a run \(.*{problem}"):
        records.read(run.folder)


@pytest.mark.parametrize("metadata", [None, {}, {"made by": "another"}, {"network": "S9Net\nand a line"}])
def test_weights_without_the_name_of_their_network_are_refused(run, metadata):
    path = run.folder / records.WEIGHTS
    path.write_bytes(safetensors.torch.save(build("reference").state_dict(), metadata))
    with pytest.raises(UserError, match="weights of a network without a name, not of S9Net"):
        records.load_weights(run.folder, build("reference"))
