"""The audit on runs, modules and notebooks, and its command. Networks and transforms: the files beside."""

import json
import re

import pytest
import torch
import torch.nn.functional as F
from conftest import REPO
from made_data import small
from made_runs import FACTS, Rule, make_notebook, make_run
from torch import nn

import assignment
import dataset
import utils
from model import S9Net
from s9 import records
from s9.data import download
from tools import audit


def test_the_values_measured(tmp_path, notebook):
    network, transform = S9Net(dropout=0.1).train(), dataset.train_transform()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    checks = audit.audit(network, transform, make_run(tmp_path, network), None, notebook)
    assert all(check.met for check in checks)
    measured = dict(check[:2] for check in checks)
    assert measured[Rule.STRUCTURE] == "C1 C2 C3 C4 O, 3 3 3 3 convolutional units"
    assert measured[Rule.SHRINKING] == (
        "C1 32>30 dilation 2, C2 30>15 stride 2, C3 15>8 stride 2, C4 8>8 (GAP follows)"
    )
    assert measured[Rule.VIEW] == "51"
    assert measured[Rule.SEPARABLE] == "C3.0.depthwise"
    assert measured[Rule.DILATED] == "C1.2.convolution by 2"
    assert measured[Rule.GLOBAL_AVERAGE].endswith("over 8x8")
    assert measured[Rule.ACCURACY] == "86.50%, loss 0.8000 on cifar10's test set: as recorded, not measured"
    assert measured[Rule.TESTED] == "3 tests in 3 epochs"
    assert measured[Rule.PARAMETERS] == "174,352"
    assert "fill=(125, 123, 114)" in measured[Rule.COARSE_DROPOUT]
    # Network and transform are as they were.
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in before.items())
    assert all(module.training for module in network.modules())
    assert [step.p for step in transform.transforms] == [0.5, 0.5, 0.5, 1.0, 1.0]


# Runs


@pytest.mark.parametrize(
    ("options", "unmet"),
    [
        ({"accuracies": (70.0, 91.0, 84.99)}, {Rule.ACCURACY}),
        ({"accuracies": (70.0, 71.0, 85.0)}, set()),
        ({"accuracies": (70.0, float("nan"))}, {Rule.ACCURACY, Rule.RECORDS}),
        ({"dataset": "digits"}, {Rule.ACCURACY}),
        ({"validation": True}, {Rule.ACCURACY}),
        ({"epochs": 4}, {Rule.TESTED}),
        ({"log": ""}, {Rule.TESTED, Rule.RECORDS}),
        ({"accuracies": (), "epochs": 1}, {Rule.ACCURACY, Rule.TESTED}),
    ],
)
def test_a_run_that_breaks_a_rule(options, unmet, tmp_path, audited):
    assert set(audited(run=make_run(tmp_path, **options))) == unmet


@pytest.mark.parametrize("content", [None, b"no weights at all", "another network"])
def test_weights_of_another_network_or_none(content, tmp_path, audited):
    other = S9Net()
    other.C1 = nn.Sequential(other.C1[0], other.C1[2])
    run = make_run(tmp_path, other)
    if content is None:
        (tmp_path / records.WEIGHTS).unlink()
    elif isinstance(content, bytes):
        (tmp_path / records.WEIGHTS).write_bytes(content)
    assert set(audited(run=run)) == {Rule.WEIGHTS}


# The accuracy, measured


@pytest.fixture
def tested(tmp_path, monkeypatch):
    """A made data set with 400 test images, and the run of a network that gets 380 of them right."""
    data = small(400)
    labels = torch.from_numpy(data.test_labels)

    def predict(network, loader):
        moved = network.C4[0].convolution.weight[0, 0, 0, 0].item() > 100
        given = torch.where(torch.arange(400) < 380, labels, (labels + 1) % 10)
        return 4 * F.one_hot((given + moved) % 10, 10).float(), labels

    monkeypatch.setattr(utils, "predict", predict)
    loss = round(F.cross_entropy(*predict(S9Net(), None)).item(), 4)
    facts = FACTS | {"data": {"fingerprint": data.fingerprint(), "train": 50_000, "test": 10_000}}
    return data, make_run(tmp_path, accuracies=(70.0, 95.0), loss=loss, facts=facts)


def test_the_weights_are_tested_and_compared_with_the_record(tested, audited):
    data, run = tested
    assert audited(run=run, data=data) == {}
    last = run.history[-1]
    for change in ({"test_accuracy": 99.56}, {"test_accuracy": 95.03}, {"test_loss": last.test_loss + 0.001}):
        doctored = run._replace(history=[run.history[0], last._replace(**change)])
        measured = audited(run=doctored, data=data)[Rule.ACCURACY]
        assert measured.startswith("95.00%, loss ")
        assert f" on cifar10's test set, recorded {change.get('test_accuracy', 95.0):.2f}%" in measured


def test_one_weight_that_matters_is_noticed(tested, audited):
    data, run = tested
    network = S9Net()
    with torch.no_grad():
        network.C4[0].convolution.weight[0, 0, 0, 0] = 1000.0
    records.write(run, network)
    assert set(audited(network=network, run=run, data=data)) == {Rule.ACCURACY}


def test_other_data_than_the_runs_is_named_and_may_differ_a_little(tested, audited):
    data, run = tested
    other = data._replace(train_labels=data.train_labels[::-1])
    close = run._replace(history=[run.history[0], run.history[1]._replace(test_accuracy=94.7)])
    assert audited(run=close, data=other).keys() == {Rule.RECORDS}
    assert set(audited(run=close, data=data)) == {Rule.ACCURACY, Rule.RECORDS}
    far = run._replace(history=[run.history[0], run.history[1]._replace(test_accuracy=94.0)])
    measured = audited(run=far, data=other)[Rule.ACCURACY]
    assert measured.endswith(f"; data {other.fingerprint()}, recorded {data.fingerprint()}")


def test_the_committed_weights_on_the_real_test_set(cifar10, capsys):
    run = records.read(records.leading_run(REPO / "results"))
    assert audit.print_audit(run, cifar10) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"ok test accuracy >= 85%, last epoch {run.history[-1].test_accuracy:.2f}%, loss" in printed
    if without := re.search(r"; (\S+) without 34 images", printed):
        assert f" {without[1]} of 9,966 images" in (REPO / "docs" / "experiments.md").read_text(
            encoding="utf-8"
        )


# Modules and the notebook


def test_a_network_that_is_defined_elsewhere(audited, monkeypatch):
    monkeypatch.setattr(S9Net, "__module__", "__main__")
    assert set(audited()) == {Rule.MODULAR}


@pytest.mark.parametrize(
    ("cell", "met"),
    [
        (["import model\n", "class Network(model.S9Net):\n", "    pass"], False),
        ("if True:\n    async def helper():\n        pass", False),
        ("print(sorted([1], key=lambda number: -number))", False),
        ("%%time\ndef helper():\n    pass", False),
        ("this is no Python", False),
        (["%matplotlib inline\n", "if True:\n", "    !ls\n", "x = 7 % 2"], True),
    ],
)
def test_a_notebook_must_define_nothing_in_its_code(cell, met, tmp_path, audited):
    path = make_notebook(tmp_path / "S9.ipynb", "import model", cell, [])
    notebook = json.loads(path.read_text(encoding="utf-8"))
    notebook["cells"].append({"cell_type": "markdown", "source": ["def is a keyword\n", "lambda: too"]})
    path.write_text(json.dumps(notebook), encoding="utf-8")
    assert set(audited(path=path)) == (set() if met else {Rule.MODULAR})


@pytest.mark.parametrize("text", [None, "", "null", '{"cells": [{}]}', '{"cells": 1}'])
def test_a_notebook_that_is_none(text, tmp_path, audited):
    path = tmp_path / "other.ipynb"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    assert set(audited(path=path)) == {Rule.MODULAR}


# The command


@pytest.mark.parametrize(("accuracy", "code"), [(86.5, 0), (84.0, 1)])
def test_the_command_prints_lines_that_fit_a_colab_cell(accuracy, code, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(download, "cached", lambda: None)
    make_run(tmp_path, accuracies=(accuracy,))
    assert assignment.main(["audit", "--run", str(tmp_path)]) == code
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[-1] == f"{16 - code} of 16 requirements met"
    failed = [line for line in lines if line.startswith("FAIL")]
    assert [line[6:].split("  ")[0] for line in failed] == [Rule.ACCURACY] * code
