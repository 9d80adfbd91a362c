import io
import json

import numpy as np
import pytest
import torch
from conftest import REPO
from made_runs import make_run
from PIL import Image

import predict
import utils
from dataset import test_transform
from model import build
from s9.data import photos
from s9.data.cifar10 import CLASSES, MEAN, STD
from s9.data.sources import load

REFERENCE = REPO / "results" / "reference"


def image(seed):
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)


@pytest.fixture
def pictures(tmp_path):
    """A folder of three pictures; what else a test needs it adds."""
    for number, name in enumerate(("c.png", "a.png", "b.png")):
        Image.fromarray(image(number)).save(tmp_path / name)
    return tmp_path


def run(capsys, *arguments):
    """Exit code, lines of output, lines of errors."""
    try:
        code = predict.main([str(argument) for argument in arguments]) or 0
    except SystemExit as ended:
        code = ended.code
    out, err = capsys.readouterr()
    return code, out.splitlines(), err.splitlines()


def test_each_picture_is_a_line_with_the_three_likeliest(pictures, capsys):
    code, lines, errors = run(capsys, pictures / "c.png", pictures / "a.png", "--run", REFERENCE)
    assert (code, errors) == (0, [])
    trained = predict.load_classifier(REFERENCE)
    for line, name in zip(lines, ("c.png", "a.png"), strict=True):
        inputs = test_transform()(image=photos.read(pictures / name))["image"][None]
        row = trained.network(inputs).softmax(1)[0].detach().numpy()
        likeliest = [f"{CLASSES[index]} {row[index]:.1%}" for index in np.argsort(-row)[:3]]
        assert line == f"{pictures / name}: {', '.join(likeliest)}"


def test_bad_files_are_told_in_a_line_each_and_the_others_predicted(pictures, capsys):
    (pictures / "b.png").write_bytes(b"")
    (pictures / "empty").mkdir()
    nowhere, long = pictures / "nowhere.jpg", pictures / ("x" * 300)
    code, lines, errors = run(capsys, nowhere, long, pictures, pictures / "empty", "--run", REFERENCE)
    assert code == 2
    assert [line.split(": ")[0] for line in lines] == [str(pictures / "a.png"), str(pictures / "c.png")]
    assert errors == [
        f"predict.py: error: {nowhere}: cannot be read as a picture (No such file or directory)",
        f"predict.py: error: {long}: cannot be read as a picture (File name too long)",
        f"predict.py: error: {pictures / 'b.png'}: cannot be read as a picture (the file is empty)",
        f"predict.py: error: {pictures / 'empty'}: holds no picture (subfolders are not searched)",
    ]


def test_json_holds_all_classes_of_each_picture_and_all_errors(pictures, capsys):
    (pictures / "b.png").write_bytes(b"no picture")
    code, lines, errors = run(capsys, pictures, "--run", REFERENCE, "--json")
    whole = json.loads("\n".join(lines))
    assert (code, len(errors)) == (2, 1)
    assert (whole["run"], whole["model"]) == (str(REFERENCE), "reference")
    assert [row["file"] for row in whole["predictions"]] == [str(pictures / "a.png"), str(pictures / "c.png")]
    for row in whole["predictions"]:
        assert set(row["probabilities"]) == set(CLASSES)
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        values = list(row["probabilities"].values())
        assert values == sorted(values, reverse=True)
        assert (row["class"], row["probability"]) == next(iter(row["probabilities"].items()))
    message = f"{pictures / 'b.png'}: cannot be read as a picture (unknown format: save it as JPEG)"
    assert whole["errors"] == [{"file": str(pictures / "b.png"), "error": message}]
    assert errors == [f"predict.py: error: {message}"]


NAMES = {"caf\udce9.png": "caf\\udce9.png", "a\n\x1b[31m.png": "a\\n\\x1b[31m.png"}


@pytest.mark.parametrize("name", NAMES)
def test_an_odd_name_is_one_line(pictures, capsys, name):
    """Bytes that are no text, a line break, an escape sequence; as an argument and in a folder."""
    odd = (pictures / "c.png").rename(pictures / name)
    code, lines, errors = run(capsys, odd, pictures, "--run", REFERENCE)
    assert (code, errors, len(lines)) == (0, [], 4)
    assert sum(line.startswith(f"{pictures}/{NAMES[name]}: ") for line in lines) == 2
    _, lines, _ = run(capsys, odd, "--run", REFERENCE, "--json")
    assert json.loads("\n".join(lines))["predictions"][0]["file"] == str(odd)
    odd.write_bytes(b"")
    code, lines, errors = run(capsys, odd, "--run", REFERENCE)
    assert (code, len(lines), len(errors)) == (2, 0, 1)
    assert f"{NAMES[name]}: cannot be read" in errors[0]


def test_a_cut_jpeg_is_predicted_with_a_note(pictures, capsys):
    content = io.BytesIO()
    Image.fromarray(image(0)).resize((64, 64)).save(content, "JPEG")
    (pictures / "cut.jpg").write_bytes(content.getvalue()[:-30])
    note = f"{pictures / 'cut.jpg'}: the end of the file is missing: the pixels that it held are grey"
    code, lines, errors = run(capsys, pictures, "--run", REFERENCE, "--json")
    whole = json.loads("\n".join(lines))
    assert (code, len(whole["predictions"]), whole["notes"]) == (0, 4, [note])
    assert errors == [f"predict.py: note: {note}"]


def test_weights_that_are_not_finite_are_refused(pictures, refused):
    network = build("fast")
    with torch.no_grad():
        next(network.parameters()).view(-1)[-1] = np.nan
    make_run(pictures, network, model="fast")
    line = refused(predict, pictures / "a.png", "--run", pictures)
    assert "weights.safetensors holds weights that are not finite" in line


def test_a_run_on_digits_is_asked_with_its_own_classes_and_normalisation(pictures):
    network = build("fast")
    make_run(pictures, network, model="fast", dataset="digits")
    trained = predict.load_classifier(pictures)
    data = load("digits")
    assert trained[2:] == (data.classes, data.mean, data.std)
    assert predict.load_classifier(REFERENCE)[2:] == (CLASSES, MEAN, STD)
    for pixels, expected in zip(data.test_images[:3], utils.probabilities(network, data), strict=False):
        Image.fromarray(pixels).save(pictures / "a.png")
        answer = predict.classify(trained, photos.read(pictures / "a.png"))
        assert [answer[name] for name in data.classes] == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: PICTURE"),
        (["a.jpg", "--run", "nowhere"], "is not the record of a run"),
        (["a.jpg", "--run", str(REFERENCE), "--device", "tpu"], "unknown device 'tpu'"),
    ],
)
def test_a_mistake_is_one_line(refused, arguments, message):
    assert message in refused(predict, *arguments)
