import importlib
import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import REPO
from made_runs import make_run
from torch import nn

from model import NETWORKS, build
from predict import Classifier
from s9.data.cifar10 import CLASSES, MEAN, STD
from tools import export_onnx


def trained(name):
    """A network whose BatchNorms do something, as after training: fresh ones only pass their input on."""
    torch.manual_seed(0)
    network = build(name)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight.data, norm.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (norm.bias.data, norm.running_mean):
                tensor.normal_(0, 0.2)
    return Classifier(name, network.eval(), CLASSES, MEAN, STD)


@pytest.fixture(scope="module")
def fast():
    network = trained("fast")
    return network, export_onnx.to_onnx(network)


@pytest.fixture
def folder(tmp_path, fast):
    """A run folder of the network on CIFAR-10."""
    return make_run(tmp_path / "run", fast[0].network, model="fast").folder


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_runtime_computes_what_the_network_does(name, request):
    if name == "fast":
        network, content = request.getfixturevalue("fast")
    else:
        network = trained(name)
        with torch.no_grad():
            network.network.O.classifier.weight *= 1000  # Large logits round more coarsely.
        content = export_onnx.to_onnx(network)
    assert export_onnx.largest_difference(content, network.network) <= export_onnx.TOLERANCE


def test_the_file_says_what_goes_in_and_comes_out_and_nothing_of_this_machine(fast):
    model = onnx.load_from_string(fast[1])
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts.pop("model") == "fast"
    expected = {"classes": list(CLASSES), "mean": list(MEAN), "std": list(STD)}
    assert {key: json.loads(value) for key, value in facts.items()} == expected
    (images,), (logits,) = model.graph.input, model.graph.output
    shapes = {
        value.name: [size.dim_value or size.dim_param for size in value.type.tensor_type.shape.dim]
        for value in (images, logits)
    }
    assert shapes == {"images": ["batch", 3, 32, 32], "logits": ["batch", 10]}
    assert images.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    for trace in (str(REPO).encode(), b"site-packages", b"model.py"):
        assert trace not in fast[1]


def test_other_weights_are_seen_and_so_is_nan(fast):
    network = trained("fast").network
    with torch.no_grad():
        network.O.classifier.weight[3, 0] += 1
    assert export_onnx.largest_difference(fast[1], network) > 1e-2
    with torch.no_grad():
        network.O.classifier.weight[3, 0] = torch.nan
    assert np.isnan(export_onnx.largest_difference(fast[1], network))


def test_the_command_writes_a_file_that_another_program_can_use(folder, tmp_path, fast, capsys, monkeypatch):
    monkeypatch.setattr(export_onnx, "to_onnx", lambda trained: fast[1])
    out = tmp_path / "new" / "s9.onnx"
    export_onnx.main(["--run", str(folder), "--out", str(out)])
    first, last = capsys.readouterr().out.splitlines()
    assert float(first.removeprefix("largest relative difference of logits: ")) <= 1e-5
    assert last == f"{out}: {out.stat().st_size:,} bytes"
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": np.zeros((5, 3, 32, 32), np.float32)})
    assert logits.shape == (5, 10)
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == list(CLASSES)


@pytest.mark.parametrize("difference", [2e-5, float("nan")])
def test_a_file_that_differs_is_not_written(folder, tmp_path, fast, capsys, monkeypatch, difference):
    monkeypatch.setattr(export_onnx, "to_onnx", lambda trained: fast[1])
    monkeypatch.setattr(export_onnx, "largest_difference", lambda *_: difference)
    out = tmp_path / "s9.onnx"
    out.write_bytes(b"old")
    with pytest.raises(SystemExit) as ended:
        export_onnx.main(["--run", str(folder), "--out", str(out)])
    assert ended.value.code == 1
    line = "python -m tools.export_onnx: error: that is not at most 1e-05: nothing written\n"
    assert capsys.readouterr().err == line
    assert out.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "nowhere"], "is not the record of a run"),
        (["--run", REPO / "results" / "fast", "--out", "{tmp}"], "is a folder: choose a file, such as"),
        (["--run", "{tmp}/run", "--out", "{tmp}/file/s9.onnx"], "cannot write to"),
        (["--run", "{tmp}/run", "--out", "{tmp}/" + "x" * 300], "cannot write to"),
    ],
)
def test_a_mistake_is_one_line(refused, folder, tmp_path, arguments, message):
    (tmp_path / "file").touch()
    assert message in refused(export_onnx, *[str(argument).format(tmp=tmp_path) for argument in arguments])


def test_without_its_packages_the_command_tells_how_to_get_them(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    importlib.reload(export_onnx)  # It imports them where it uses them.
    message = "the export needs onnx: pip install onnx onnxruntime onnxscript"
    assert refused(export_onnx) == f"python -m tools.export_onnx: error: {message}\n"
