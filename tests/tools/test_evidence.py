"""Runs whose files disagree, JPEG copies, and the committed pictures against drawn ones."""

import re

import cv2
import numpy as np
import pytest
import torch
from conftest import REPO
from made_runs import make_run

from s9 import records
from tools import evidence, report


def changed_row(**values):
    def change(run):
        run.history[1] = run.history[1]._replace(**values)
        return run

    return change


def changed_log(old, new):
    return lambda run: run._replace(log=re.sub(old, new, run.log))


def changed_settings(**values):
    return lambda run: run._replace(settings=run.settings.__class__(**{**vars(run.settings), **values}))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (changed_row(train_accuracy=60.01), "train accuracy 60.00 in the log, 60.01 in the history"),
        (changed_row(test_loss=0.8001), "test loss 0.8000 in the log, 0.8001 in the history"),
        (changed_row(test_accuracy=84.1), "test accuracy 84.00 in the log, 84.10 in the history"),
        (changed_row(learning_rate=0.1), "learning rate 0.100000 in the history, 0.166454 in the settings"),
        (changed_row(seconds=7.9), "training took 9 s in the log, the epoch 7.9 s in the history"),
        (changed_log("8400/", "9400/"), "test accuracy 84.00 in the log, 94.00 in the count of images"),
        (
            changed_log("4200/5000|8400/10000", "4200/5000"),
            "test images 5000 in the log, 10000 in the settings",
        ),
        (changed_settings(batch_size=64), "last batch 390 in the log, 781 in the settings"),
    ],
)
def test_a_doctored_history_log_or_record_is_named_with_its_epoch(change, line, tmp_path):
    assert evidence.disagreements(make_run(tmp_path, validation=True)) == []
    run = make_run(tmp_path)
    assert evidence.disagreements(run) == []
    lines = evidence.disagreements(change(run))
    assert f"{tmp_path}, epoch 2: {line}" in lines


def test_missing_epochs_are_named(tmp_path):
    run = make_run(tmp_path)
    line = f"{tmp_path}: the log has epochs [1, 2, 3], the history [1, 2]"
    assert evidence.disagreements(run._replace(history=run.history[:2])) == [line]
    line = f"{tmp_path}: the log has epochs [2, 3], the history [1, 2, 3]"
    damages = ("=60.00", " 60.00"), (r"\d+/10000", "0/0"), (r"\d+/", "9" * 900 + "/"), (r"\[[\d:]+<", "[::<")
    for old, new in damages:
        damaged = run._replace(log=re.sub(old, new, run.log, count=1))
        assert evidence.disagreements(damaged) == [line], new


def test_jpeg_copies_are_told_from_other_images():
    smooth = np.random.default_rng(0).integers(90, 170, (3, 6, 6, 1), np.uint8).repeat(3, axis=3)
    images = np.stack([cv2.resize(image, (32, 32), interpolation=cv2.INTER_CUBIC) for image in smooth])
    _, encoded = cv2.imencode(".jpg", images[1], (cv2.IMWRITE_JPEG_QUALITY, 75))
    images[1] = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert evidence.jpeg_copies(images[..., ::-1]).tolist() == [False, True, False]


def test_the_jpeg_copies_of_the_recorded_data_are_as_many_as_the_page_says(cifar10):
    if (
        cifar10.fingerprint()
        != records.read(records.leading_run(REPO / "results")).facts["data"]["fingerprint"]
    ):
        pytest.skip("another copy of CIFAR-10 than the runs'")
    ships = []
    for images, labels in (cifar10[2:4], cifar10[4:6]):
        copies = evidence.jpeg_copies(images)
        ships += [f"{copies.sum()}", f"{(copies & (labels == 8)).sum()}"]
    page = " ".join((REPO / "docs" / "experiments.md").read_text(encoding="utf-8").split())
    assert "{0} training and {2} test images, of which {1} and {3} are ships".format(*ships) in page


def test_the_committed_pictures_are_those_that_the_code_draws(cifar10, tmp_path):
    """Where they were drawn, on the machine of results/short; elsewhere fonts and rounding differ."""
    run = records.read(records.leading_run(REPO / "results"))
    drawn_on = records.read(REPO / "results" / "short").facts
    here = records.collect_facts({}, torch.device("cpu"), "float32", 0)
    if cifar10.fingerprint() != run.facts["data"]["fingerprint"] or any(
        here[fact] != drawn_on[fact] for fact in ("device", "python", "versions")
    ):
        pytest.skip("other data, another machine or other versions than those of the pictures")
    report.draw_figures(run, cifar10, tmp_path)
    names = {path.name for folder in (REPO / "Images", tmp_path) for path in folder.glob("*.png")}
    for name in names:
        committed, drawn = (cv2.imread(str(folder / name)) for folder in (REPO / "Images", tmp_path))
        assert np.array_equal(committed, drawn), name
