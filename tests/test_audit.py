import json
import warnings
from collections import OrderedDict

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import assignment
import audit
import dataset
import records
from errors import UserError
from model import S9Net, conv_unit
from records import Epoch, Run
from settings import Settings

STRUCTURE = "C1 C2 C3 C4 O, three convolutions a block"
SHRINKING = "a block shrinks in its third convolution, by stride 2 or dilation"
MAX_POOLING = "no max-pooling"
VIEW = "receptive field > 44"
SEPARABLE = "a depthwise separable convolution"
DILATED = "a dilated convolution"
GLOBAL_AVERAGE = "global average pooling"
FLIP = "HorizontalFlip"
SHIFT_SCALE_ROTATE = "ShiftScaleRotate"
COARSE_DROPOUT = "CoarseDropout, one 16x16 hole, filled with the mean"
ACCURACY = "test accuracy >= 85%, last epoch"
TESTED = "a test after every epoch"
PARAMETERS = "fewer than 200,000 parameters"
WEIGHTS = "the run's weights are this network's"
MODULAR = "modular code"

NETWORK_CHECKS = {STRUCTURE, SHRINKING, MAX_POOLING, VIEW, SEPARABLE, DILATED, GLOBAL_AVERAGE, PARAMETERS}


def make_run(folder, network=None, accuracies=(70.0, 84.0, 86.5), log=None, **settings):
    history = [Epoch(n, 0.1, 1.0, 60.0, 0.8, accuracy, 9.0) for n, accuracy in enumerate(accuracies, 1)]
    if log is None:
        log = "".join(
            f"Epoch {row.epoch}\nTest set: Average loss: 0.8000, Accuracy: 1/1 ({row.test_accuracy:.2f}%)\n\n"
            for row in history
        )
    run = Run(
        folder, Settings(**{"epochs": len(history)} | settings), {"data": {"test": 10_000}}, history, log
    )
    records.write(run, network or S9Net())
    return run


def make_notebook(path, *cells):
    path.write_text(json.dumps({"cells": [{"cell_type": "code", "source": cell} for cell in cells]}))
    return path


@pytest.fixture
def notebook(tmp_path):
    return make_notebook(tmp_path / "S9.ipynb", ["import model\n", "network = model.build('reference')"])


@pytest.fixture
def audited(tmp_path, notebook):
    """Audits what is given, the rest being good; gives the checks that are not met, by requirement."""

    def failures(network=None, transform=None, run=None, path=notebook):
        network = S9Net() if network is None else network
        transform = dataset.train_transform() if transform is None else transform
        run = make_run(tmp_path, network) if run is None else run
        checks = audit.audit(network, transform, run, path)
        assert len(checks) == 15
        assert all(check.measured and "\n" not in check.measured for check in checks)
        return {check.requirement: check.measured for check in checks if not check.met}

    return failures


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


# Networks. They are changed in place where that will do, so that their class stays the one of model.py.


def changed(change):
    network = S9Net()
    change(network)
    return network


def of_model(forward):
    """A class that counts as defined in model.py, with another forward pass."""
    return type("S9Net", (S9Net,), {"__module__": "model", "forward": forward})()


def no_c3():
    network = of_model(lambda self, images: self.O(self.C4(self.C2(self.C1(images)))).flatten(1))
    del network.C3
    network.C4[0].convolution = nn.Conv2d(32, 64, 3, padding=1)
    network.O.global_average = nn.AvgPool2d(15)
    return network


def two_units(network):
    network.C1 = nn.Sequential(network.C1[0], network.C1[2])


def four_units(network):
    network.C1 = nn.Sequential(conv_unit(3, 16, 0), conv_unit(16, 16, 0), *network.C1[1:])


def early_stride(network):
    network.C2[1].convolution.stride = (2, 2)
    network.C2[2].convolution.stride = (1, 1)


def no_stride(network):
    network.C2[2].convolution.stride = (1, 1)
    network.O.global_average = nn.AvgPool2d(15)


def cut_short(network):
    network.C2[2].convolution.stride = (1, 1)
    network.C2[2].convolution.padding = (0, 0)
    network.O.global_average = nn.AvgPool2d(14)


def pooled(pooling):
    def change(network):
        network.C2[2].convolution.stride = (1, 1)
        network.C2[2].add_module("pooling", pooling)

    return change


def idle_max_pooling(network):
    network.C1[0].add_module("pooling", nn.MaxPool2d(3, stride=1, padding=1))


def small_view(network):
    for unit in network.C4:
        unit.convolution.kernel_size, unit.convolution.padding = (1, 1), (0, 0)
        unit.convolution.weight = nn.Parameter(unit.convolution.weight[:, :, :1, :1].detach().clone())


def not_separable(network):
    network.C3[0] = conv_unit(32, 48, 0)


def grouped(network):
    network.C3[0].depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=16, bias=False)


def no_pointwise(network):
    network.C3[0].depthwise = nn.Identity()
    network.C3[0].pointwise = nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False)
    network.C3[0].norm = nn.BatchNorm2d(32)
    network.C3[1].convolution = nn.Conv2d(32, 48, 3, padding=1, bias=False)


def grouped_pointwise(network):
    network.C3[0].pointwise = nn.Conv2d(32, 48, 1, groups=16, bias=False)


def classifier_is_no_pointwise(network):
    network.C3[0] = conv_unit(32, 48, 0)
    network.C4[2].convolution = nn.Conv2d(64, 64, 3, padding=1, groups=64, bias=False)
    for unit in network.C1:  # Makes up for the parameters.
        unit.convolution.requires_grad_(False)


def not_dilated(network):
    network.C1[2].convolution.dilation = (1, 1)
    network.C1[2].convolution.stride = (2, 2)
    network.O.global_average = nn.AvgPool2d(4)


def dilated_in_vain(network):
    not_dilated(network)
    network.C3[0].pointwise = nn.Conv2d(32, 48, 1, dilation=2, bias=False)


def no_average(network):
    network.O = nn.Sequential(nn.Flatten(), nn.Linear(64 * 8 * 8, 3), nn.Linear(3, 10), nn.Flatten(1))


def partial_average(network):
    network.O = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(64 * 2 * 2, 10))


def maximum(network):
    network.O.global_average = nn.AdaptiveMaxPool2d(1)


def functional_max_pooling(network, images):
    features = F.max_pool2d(network.C2(network.C1(images)), 3, 1, 1)
    return network.O(network.C4(network.C3(features))).flatten(1)


def too_large(network):
    network.C3[1].convolution = nn.Sequential(nn.Conv2d(48, 107, 3, padding=1), nn.Conv2d(107, 48, 1))


NETWORKS = {
    "no C3": (no_c3(), {STRUCTURE, SHRINKING, VIEW, SEPARABLE}),
    "two units": (changed(two_units), {STRUCTURE}),
    "four units": (changed(four_units), {STRUCTURE}),
    "stride in the second unit": (changed(early_stride), {SHRINKING}),
    "no stride": (changed(no_stride), {SHRINKING, VIEW}),
    "shrinks by padding": (changed(cut_short), {SHRINKING, VIEW}),
    "max-pooling for stride": (changed(pooled(nn.MaxPool2d(2))), {SHRINKING, MAX_POOLING}),
    "average pooling for stride": (changed(pooled(nn.AvgPool2d(2))), {SHRINKING}),
    "max-pooling, same size": (changed(idle_max_pooling), {MAX_POOLING}),
    "functional max-pooling": (of_model(functional_max_pooling), {MAX_POOLING}),
    "small view": (changed(small_view), {VIEW}),
    "not separable": (changed(not_separable), {SEPARABLE}),
    "grouped, not depthwise": (changed(grouped), {SEPARABLE}),
    "depthwise without pointwise": (changed(no_pointwise), {SEPARABLE}),
    "pointwise in groups": (changed(grouped_pointwise), {SEPARABLE}),
    "depthwise before the classifier": (changed(classifier_is_no_pointwise), {SEPARABLE}),
    "not dilated": (changed(not_dilated), {DILATED}),
    "dilated 1x1": (changed(dilated_in_vain), {DILATED}),
    "flatten and Linear": (changed(no_average), {GLOBAL_AVERAGE}),
    "average over quarters": (changed(partial_average), {GLOBAL_AVERAGE}),
    "global maximum": (changed(maximum), {GLOBAL_AVERAGE, MAX_POOLING}),
    "too large": (changed(too_large), {PARAMETERS}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_breaks_a_rule(name, audited):
    network, unmet = NETWORKS[name]
    assert network.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert set(audited(network)) == unmet


def test_the_limit_of_parameters_itself_is_too_many(audited):
    for more, unmet in ((200_000 - 174_352, {PARAMETERS}), (199_999 - 174_352, set())):
        network = S9Net()
        network.register_parameter("more", nn.Parameter(torch.zeros(more)))
        assert set(audited(network)) == unmet


class Idle(nn.Sequential):
    """A unit that leaves out its part `dilated`."""

    def forward(self, features):
        for name, part in self.named_children():
            features = features if name == "dilated" else part(features)
        return features


@pytest.mark.parametrize(("unit", "unmet"), [(nn.Sequential, set()), (Idle, {DILATED})])
def test_a_layer_counts_if_it_is_used(unit, unmet, audited):
    network = changed(not_dilated)
    dilated = nn.Conv2d(32, 32, 3, padding=2, dilation=2, groups=16)
    network.C2[0] = unit(OrderedDict([*network.C2[0].named_children(), ("dilated", dilated)]))
    assert set(audited(network)) == unmet


def test_convolutions_without_a_unit_around(audited):
    network = S9Net()
    network.C4 = nn.Sequential(*(nn.Conv2d(n, 64, 3, padding=1) for n in (48, 64, 64)))
    assert audited(network) == {}


def branching(network, images):
    return S9Net.forward(network, images if images.sum() > 0 else -images)


def failing(network, images):
    raise KeyError("no such thing")


@pytest.mark.parametrize("forward", [branching, failing])
def test_a_network_that_cannot_be_measured(forward, audited, capsys):
    unmet = audited(of_model(forward))
    assert set(unmet) == NETWORK_CHECKS - {STRUCTURE, PARAMETERS}
    assert all(measured.startswith("cannot be measured: ") for measured in unmet.values())
    assert capsys.readouterr() == ("", "")


def test_a_network_of_another_kind(audited):
    unmet = audited(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)))
    assert NETWORK_CHECKS - {MAX_POOLING, PARAMETERS} <= set(unmet) <= NETWORK_CHECKS | {MODULAR}


# Transforms


def replaced(index, *steps):
    transforms = list(dataset.train_transform().transforms)
    return A.Compose([*transforms[:index], *steps, *transforms[index + 1 :]])


def dropout(**arguments):
    settings = {
        "num_holes_range": (1, 1),
        "hole_height_range": (16, 16),
        "hole_width_range": (16, 16),
        "fill": tuple(round(255 * channel) for channel in dataset.MEAN),
        "fill_mask": None,
        "p": 0.5,
    }
    return A.CoarseDropout(**settings | arguments)


def old_dropout():
    """Albumentations 2 ignores the names that version 1 had, with a warning, and uses its own defaults."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return A.CoarseDropout(
            max_holes=1, max_height=16, max_width=16, min_holes=1, min_height=16, min_width=16,
            fill_value=tuple(round(255 * channel) for channel in dataset.MEAN), mask_fill_value=None, p=0.5,
        )  # fmt: skip


def shift_scale_rotate(**arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return A.ShiftScaleRotate(**arguments)


def behind_normalize():
    flip, shift, hole, *rest = dataset.train_transform().transforms
    return A.Compose([flip, shift, rest[0], hole, rest[1]])


TRANSFORMS = {
    "no flip": (lambda: replaced(0), FLIP),
    "a vertical flip": (lambda: replaced(0, A.VerticalFlip(p=0.5)), FLIP),
    "a flip never used": (lambda: replaced(0, A.HorizontalFlip(p=0)), FLIP),
    "a flip in a choice": (lambda: replaced(0, A.OneOf([A.HorizontalFlip(p=1), A.VerticalFlip(p=1)])), FLIP),
    "no shift": (lambda: replaced(1), SHIFT_SCALE_ROTATE),
    "Affine": (
        lambda: replaced(1, A.Affine(translate_percent=0.06, scale=(0.9, 1.1), rotate=(-15, 15), p=0.5)),
        SHIFT_SCALE_ROTATE,
    ),
    "a shift never used": (lambda: replaced(1, shift_scale_rotate(p=0)), SHIFT_SCALE_ROTATE),
    "no shift in it": (lambda: replaced(1, shift_scale_rotate(shift_limit=0)), SHIFT_SCALE_ROTATE),
    "no scale in it": (lambda: replaced(1, shift_scale_rotate(scale_limit=0)), SHIFT_SCALE_ROTATE),
    "no rotation in it": (lambda: replaced(1, shift_scale_rotate(rotate_limit=0)), SHIFT_SCALE_ROTATE),
    "no hole": (lambda: replaced(2), COARSE_DROPOUT),
    "grid dropout": (lambda: replaced(2, A.GridDropout()), COARSE_DROPOUT),
    "two holes": (lambda: replaced(2, dropout(num_holes_range=(2, 2))), COARSE_DROPOUT),
    "one or two holes": (lambda: replaced(2, dropout(num_holes_range=(1, 2))), COARSE_DROPOUT),
    "8x8": (
        lambda: replaced(2, dropout(hole_height_range=(8, 8), hole_width_range=(8, 8))),
        COARSE_DROPOUT,
    ),
    "16x15": (lambda: replaced(2, dropout(hole_width_range=(15, 15))), COARSE_DROPOUT),
    "8 to 16": (lambda: replaced(2, dropout(hole_height_range=(8, 16))), COARSE_DROPOUT),
    "black": (lambda: replaced(2, dropout(fill=0)), COARSE_DROPOUT),
    "the mean in 0..1": (lambda: replaced(2, dropout(fill=dataset.MEAN)), COARSE_DROPOUT),
    "ImageNet's mean": (lambda: replaced(2, dropout(fill=(124, 116, 104))), COARSE_DROPOUT),
    "the mean backwards": (lambda: replaced(2, dropout(fill=(114, 123, 125))), COARSE_DROPOUT),
    "noise": (lambda: replaced(2, dropout(fill="random")), COARSE_DROPOUT),
    "the mask filled": (lambda: replaced(2, dropout(fill_mask=0)), COARSE_DROPOUT),
    "a hole never used": (lambda: replaced(2, dropout(p=0)), COARSE_DROPOUT),
    "names of version 1": (lambda: replaced(2, old_dropout()), COARSE_DROPOUT),
    "two dropouts": (lambda: replaced(2, dropout(), dropout()), COARSE_DROPOUT),
    "a hole in normalised images": (behind_normalize, COARSE_DROPOUT),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_that_breaks_a_rule(name, audited):
    make, requirement = TRANSFORMS[name]
    assert set(audited(transform=make())) == {requirement}


def test_transforms_that_are_never_used_together(audited):
    transform = A.Compose(dataset.train_transform().transforms, p=0)
    assert set(audited(transform=transform)) == {FLIP, SHIFT_SCALE_ROTATE, COARSE_DROPOUT}


def test_the_same_said_in_another_way(audited):
    """What counts is what happens to the pixels: half of 32 is 16."""
    half = (0.5, 0.5)
    assert audited(transform=replaced(2, dropout(hole_height_range=half, hole_width_range=half, p=1))) == {}
    assert audited(transform=replaced(0, A.HorizontalFlip(p=1), A.RandomBrightnessContrast())) == {}


@pytest.mark.parametrize("transform", ["nothing", A.Compose([])])
def test_something_that_transforms_nothing(transform, audited):
    assert set(audited(transform=transform)) == {FLIP, SHIFT_SCALE_ROTATE, COARSE_DROPOUT}


def test_the_hole_is_as_audited():
    """The transform itself, apart from the audit."""
    image = np.full((32, 32, 3), 255, np.uint8)
    hole = dropout(p=1.0)(image=image)["image"] != 255
    assert cv2.boundingRect(hole.any(2).astype(np.uint8))[2:] == (16, 16)


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
    rows = (tmp_path / records.HISTORY).read_text().splitlines(keepends=True)
    (tmp_path / records.HISTORY).write_text("".join([*rows[:2], *rows[3:]]))
    with pytest.raises(UserError, match="its epochs do not count up from 1"):
        records.read(run.folder)
    assert set(audited(run=run._replace(history=[run.history[0], run.history[2]]))) == {TESTED}


def test_an_epoch_that_is_there_twice(tmp_path, audited):
    run = make_run(tmp_path)
    history = [run.history[0], run.history[0], run.history[2]]
    assert set(audited(run=run._replace(history=history))) == {TESTED}


def test_weights_of_another_network(tmp_path, audited):
    run = make_run(tmp_path, changed(two_units))
    assert set(audited(run=run)) == {WEIGHTS}


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
    path.write_text(json.dumps({"cells": cells}))
    assert audited(path=path) == {}


@pytest.mark.parametrize("text", [None, "", "{}", "null", "[]", '{"cells": [{}]}', '{"cells": 1}'])
def test_a_notebook_that_is_none(text, tmp_path, audited):
    path = tmp_path / "S9.ipynb"
    path.unlink(missing_ok=True)
    if text is not None:
        path.write_text(text)
    assert set(audited(path=path)) == {MODULAR}


# The command


@pytest.fixture
def command(monkeypatch, notebook):
    """`python assignment.py audit --run FOLDER`, but for the notebook."""
    with_notebook = audit.audit
    monkeypatch.setattr(audit, "audit", lambda *given: with_notebook(*given, notebook))

    def run(folder):
        try:
            return assignment.main(["audit", "--run", str(folder)])
        except SystemExit as end:
            return end.code

    return run


def test_the_command_on_a_good_run(tmp_path, command, capsys):
    make_run(tmp_path)
    assert command(tmp_path) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert [line[:4] for line in lines[:-1]] == ["ok  "] * 15
    assert lines[-1] == "15 of 15 requirements met"


def test_the_command_on_a_run_that_breaks_a_rule(tmp_path, command, capsys):
    make_run(tmp_path, accuracies=(84.0,))
    assert command(tmp_path) == 1
    out, err = capsys.readouterr()
    assert err == ""
    failed = [line for line in out.splitlines() if line.startswith("FAIL")]
    assert len(failed) == 1
    assert ACCURACY in failed[0]
    assert "84.00%" in failed[0]
    assert out.splitlines()[-1] == "14 of 15 requirements met"


def test_print_audit(tmp_path, command, capsys):
    assert assignment.print_audit(make_run(tmp_path)) == 0
    assert assignment.print_audit(make_run(tmp_path, validation=True)) == 1


def without(name):
    return lambda folder: (folder / name).unlink()


def with_text(name, text):
    return lambda folder: (folder / name).write_text(text)


DAMAGES = {
    "no settings": without(records.SETTINGS),
    "no history": without(records.HISTORY),
    "no log": without(records.LOG),
    "empty settings": with_text(records.SETTINGS, ""),
    "settings of something else": with_text(records.SETTINGS, '{"settings": {"model": "reference"}}'),
    "a list of settings": with_text(records.SETTINGS, "[]"),
    "an empty history": with_text(records.HISTORY, ""),
    "another table": with_text(records.HISTORY, "a,b\n1,2\n"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_the_command_on_a_folder_that_is_no_run(name, tmp_path, command, capsys):
    make_run(tmp_path)
    DAMAGES[name](tmp_path)
    assert command(tmp_path) == 2
    assert_one_line(capsys)


def test_the_command_on_other_folders(tmp_path, command, capsys):
    file = tmp_path / "file"
    file.touch()
    for folder in (tmp_path / "nowhere", tmp_path, file):
        assert command(folder) == 2
        assert_one_line(capsys)


def test_the_command_on_a_run_of_an_unknown_network(tmp_path, command, capsys):
    make_run(tmp_path, model="resnet")
    assert command(tmp_path) == 2
    assert "unknown model 'resnet'" in assert_one_line(capsys)


def assert_one_line(capsys):
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("assignment.py: error: ")
    assert err.count("\n") == 1
    return err
