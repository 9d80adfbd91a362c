"""The audit on runs, modules and notebooks; its networks, transforms and command have files of their own."""

import json

import pytest
import torch
from made_runs import (
    ACCURACY,
    COARSE_DROPOUT,
    DILATED,
    FLIP,
    GLOBAL_AVERAGE,
    MAX_POOLING,
    MODULAR,
    PARAMETERS,
    SEPARABLE,
    SHIFT_SCALE_ROTATE,
    SHRINKING,
    STRUCTURE,
    TESTED,
    VIEW,
    WEIGHTS,
    make_notebook,
    make_run,
)
from torch import nn

import dataset
from model import S9Net
from s9 import records
from s9.errors import UserError
from tools import audit


def test_all_is_met(audited):
    assert audited() == {}


def test_the_values_measured(tmp_path, notebook):
    network = S9Net()
    checks = audit.audit(network, dataset.train_transform(), make_run(tmp_path, network), notebook)
    assert [check.requirement for check in checks] == [
        STRUCTURE, SHRINKING, MAX_POOLING, VIEW, SEPARABLE, DILATED, GLOBAL_AVERAGE, FLIP,
        SHIFT_SCALE_ROTATE, COARSE_DROPOUT, ACCURACY, TESTED, PARAMETERS, WEIGHTS, MODULAR,
    ]  # fmt: skip
    measured = {check.requirement: check.measured for check in checks}
    assert measured[STRUCTURE] == "C1 C2 C3 C4 O, 3 3 3 3 convolutional units"
    assert measured[SHRINKING] == (
        "C1 32>30 dilation 2, C2 30>15 stride 2, C3 15>8 stride 2, C4 8>8 (GAP follows)"
    )
    assert measured[VIEW] == "51"
    assert measured[SEPARABLE] == "C3.0.depthwise"
    assert measured[DILATED] == "C1.2.convolution by 2"
    assert measured[GLOBAL_AVERAGE].endswith("over 8x8")
    assert measured[ACCURACY] == "86.50% on cifar10's test set, epoch 3"
    assert measured[TESTED] == "3 tests in 3 epochs"
    assert measured[PARAMETERS] == "174,352"
    assert "fill=(125, 123, 114)" in measured[COARSE_DROPOUT]


def test_the_audit_leaves_network_and_transform_as_they_were(tmp_path, notebook):
    network, transform = S9Net(dropout=0.1).train(), dataset.train_transform()
    run = make_run(tmp_path, S9Net())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    audit.audit(network, transform, run, notebook)
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in before.items())
    assert all(module.training for module in network.modules())
    assert [step.p for step in transform.transforms] == [0.5, 0.5, 0.5, 1.0, 1.0]


# Runs


@pytest.mark.parametrize(
    ("options", "unmet"),
    [
        ({"accuracies": (70.0, 91.0, 84.99)}, {ACCURACY}),
        ({"accuracies": (70.0, 71.0, 85.0)}, set()),
        ({"accuracies": (70.0, float("nan"))}, {ACCURACY}),
        ({"dataset": "digits"}, {ACCURACY}),
        ({"validation": True}, {ACCURACY}),
        ({"epochs": 4}, {TESTED}),
        ({"log": "Epoch 1\nEpoch 2\nTest set: Average loss: 0.8, Accuracy: 1/1 (86.50%)\n"}, {TESTED}),
        ({"log": ""}, {TESTED}),
        ({"accuracies": (), "epochs": 1}, {ACCURACY, TESTED}),
    ],
    ids=[
        "fell",
        "just",
        "not a number",
        "digits",
        "validation",
        "stopped",
        "test left out",
        "no log",
        "empty",
    ],
)
def test_a_run_that_breaks_a_rule(options, unmet, tmp_path, audited):
    assert set(audited(run=make_run(tmp_path, **options))) == unmet


def test_an_epoch_that_is_missing(tmp_path, audited):
    run = make_run(tmp_path)
    rows = (tmp_path / records.HISTORY).read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / records.HISTORY).write_text("".join([*rows[:2], *rows[3:]]), encoding="utf-8")
    with pytest.raises(UserError, match="its epochs do not count up from 1"):
        records.read(run.folder)
    assert set(audited(run=run._replace(history=[run.history[0], run.history[2]]))) == {TESTED}


def test_an_epoch_that_is_there_twice(tmp_path, audited):
    run = make_run(tmp_path)
    history = [run.history[0], run.history[0], run.history[2]]
    assert set(audited(run=run._replace(history=history))) == {TESTED}


def test_weights_of_another_network(tmp_path, audited):
    other = S9Net()
    other.C1 = nn.Sequential(other.C1[0], other.C1[2])
    assert set(audited(run=make_run(tmp_path, other))) == {WEIGHTS}


@pytest.mark.parametrize("content", [None, b"", b"no weights at all"])
def test_weights_that_are_not_there(content, tmp_path, audited):
    run = make_run(tmp_path)
    (tmp_path / records.WEIGHTS).unlink()
    if content is not None:
        (tmp_path / records.WEIGHTS).write_bytes(content)
    assert set(audited(run=run)) == {WEIGHTS}


# Modules and the notebook


@pytest.mark.parametrize("home", ["__main__", "utils", "dataset", "train"])
def test_a_network_that_is_defined_elsewhere(home, audited, monkeypatch):
    monkeypatch.setattr(S9Net, "__module__", home)
    assert set(audited()) == {MODULAR}


@pytest.mark.parametrize(
    "cell",
    [
        "def helper():\n    pass",
        ["import model\n", "class Network(model.S9Net):\n", "    pass"],
        "double = lambda number: 2 * number",
        "if True:\n    async def helper():\n        pass",
        "print(sorted([1], key=lambda number: -number))",
        "%matplotlib inline\ndef helper():\n    pass",
        "%%time\ndef helper():\n    pass",
        "this is no Python",
    ],
)
def test_a_notebook_that_defines_something(cell, tmp_path, audited):
    path = make_notebook(tmp_path / "S9.ipynb", "import model", cell)
    assert set(audited(path=path)) == {MODULAR}


def test_a_notebook_with_magics_and_prose(tmp_path, audited):
    path = tmp_path / "S9.ipynb"
    cells = [
        {"cell_type": "markdown", "source": ["def is a keyword\n", "lambda: too"]},
        {"cell_type": "code", "source": ["%matplotlib inline\n", "if True:\n", "    !ls\n", "x = 7 % 2"]},
        {"cell_type": "code", "source": []},
    ]
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    assert audited(path=path) == {}


@pytest.mark.parametrize("text", [None, "", "{}", "null", "[]", '{"cells": [{}]}', '{"cells": 1}'])
def test_a_notebook_that_is_none(text, tmp_path, audited):
    path = tmp_path / "S9.ipynb"
    path.unlink(missing_ok=True)
    if text is not None:
        path.write_text(text, encoding="utf-8")
    assert set(audited(path=path)) == {MODULAR}
