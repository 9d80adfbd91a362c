import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from made_runs import make_run
from PIL import Image
from torch import nn

import predict
import utils
from dataset import test_transform
from model import build
from s9.data import photos
from s9.data.cifar10 import CLASSES, MEAN, STD
from s9.data.sources import load
from s9.errors import UserError

REPO = Path(__file__).parent.parent
REFERENCE = REPO / "results" / "reference"


class Lightness(nn.Module):
    """The lighter an image, the surer its first class; remembers the sizes of its batches."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.batches = []

    def forward(self, images):
        self.batches.append(len(images))
        logits = torch.zeros(len(images), 10)
        logits[:, 0] = self.scale * images.mean((1, 2, 3))
        return logits


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


def test_classify_gives_what_the_network_gives_the_normalised_image():
    network = build("best")
    images = [image(seed) for seed in range(3)]
    inputs = torch.stack([test_transform()(image=image)["image"] for image in images])
    given = predict.classify(network, images)
    assert (given.shape, given.dtype) == ((3, 10), np.float32)
    assert np.allclose(given.sum(1), 1, atol=1e-6)
    with torch.no_grad():
        assert np.allclose(given, network.eval()(inputs).softmax(1), atol=1e-5)


def test_classify_takes_images_a_batch_at_a_time_and_keeps_their_order():
    network, levels = Lightness(), np.linspace(0, 255, 601).astype(np.uint8)
    taken = []

    def one_by_one():
        for level in levels:
            assert len(taken) - sum(network.batches) < predict.TEST_BATCH_SIZE
            taken.append(level)
            yield np.full((32, 32, 3), level)

    given = predict.classify(network, one_by_one())
    assert network.batches == [250, 250, 101]
    assert given.shape == (601, 10)
    assert (np.diff(given[:, 0]) >= 0).all()
    assert given[-1, 0] > given[0, 0]


def test_each_picture_is_a_line_with_the_three_likeliest(pictures, capsys):
    code, lines, errors = run(capsys, pictures / "c.png", pictures / "a.png", "--run", REFERENCE)
    assert (code, errors) == (0, [])
    trained = predict.trained_network(REFERENCE)
    for line, name in zip(lines, ("c.png", "a.png"), strict=True):
        (row,) = predict.classify(trained.network, [photos.read(pictures / name)])
        likeliest = [f"{CLASSES[index]} {row[index]:.1%}" for index in np.argsort(-row)[:3]]
        assert line == f"{pictures / name}: {', '.join(likeliest)}"


def test_bad_files_are_told_in_a_line_each_and_the_others_predicted(pictures, capsys):
    (pictures / "b.png").write_bytes(b"")
    (pictures / "empty").mkdir()
    nowhere = pictures / "nowhere.jpg"
    code, lines, errors = run(capsys, nowhere, pictures, pictures / "empty", "--run", REFERENCE)
    assert code == 2
    assert [line.split(": ")[0] for line in lines] == [str(pictures / "a.png"), str(pictures / "c.png")]
    assert errors == [
        f"predict.py: error: {nowhere}: does not exist",
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
    message = f"{pictures / 'b.png'}: cannot be read as a picture (no known format)"
    assert whole["errors"] == [{"file": str(pictures / "b.png"), "error": message}]
    assert errors == [f"predict.py: error: {message}"]


NAMES = {"caf\udce9.png": "caf\\udce9.png", "a\nb.png": "a\\nb.png", "\x1b[31mred.png": "\\x1b[31mred.png"}


@pytest.mark.parametrize("name", NAMES)
def test_an_odd_name_is_one_line(pictures, capsys, name):
    """Bytes that are no text, a line break, an escape sequence; as an argument and in a folder."""
    odd = (pictures / "c.png").rename(pictures / name)
    for arguments in ((odd,), (pictures,)):
        code, lines, errors = run(capsys, *arguments, "--run", REFERENCE)
        assert (code, errors, len(lines)) == (0, [], 1 if arguments == (odd,) else 3)
        assert any(line.startswith(f"{pictures}/{NAMES[name]}: ") for line in lines)
    _, lines, _ = run(capsys, odd, "--run", REFERENCE, "--json")
    assert json.loads("\n".join(lines))["predictions"][0]["file"] == str(odd)
    odd.write_bytes(b"")
    code, lines, errors = run(capsys, odd, pictures / "a.png", "--run", REFERENCE)
    assert (code, len(lines), len(errors)) == (2, 1, 1)
    assert f"{NAMES[name]}: cannot be read" in errors[0]


def test_paths_that_the_system_refuses_are_a_line_each(pictures, capsys, monkeypatch):
    def forbidden(path):
        if path.name in ("forbidden", "inner"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    real = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", forbidden)
    (pictures / "forbidden").mkdir()
    long = pictures / ("x" * 300)
    code, lines, errors = run(capsys, long, pictures / "forbidden", pictures / "a.png", "--run", REFERENCE)
    assert (code, len(lines), len(errors)) == (2, 1, 2)
    assert errors[1].endswith("forbidden: cannot be read (Permission denied)")


def test_classify_refuses_what_is_no_image():
    with pytest.raises(UserError, match="no images to classify"):
        predict.classify(Lightness(), [])
    with pytest.raises(UserError, match=r"shape \(64, 64, 3\) and type float32: give uint8 \(32, 32, 3\)"):
        predict.classify(Lightness(), [np.zeros((64, 64, 3), np.float32)])


def test_a_cut_jpeg_is_predicted_with_a_note(pictures, capsys):
    content = io.BytesIO()
    Image.fromarray(image(0)).resize((64, 64)).save(content, "JPEG")
    (pictures / "cut.jpg").write_bytes(content.getvalue()[:-30])
    note = f"{pictures / 'cut.jpg'}: the end of the file is missing: the pixels that it held are grey"
    code, lines, errors = run(capsys, pictures, "--run", REFERENCE)
    assert (code, len(lines), errors) == (0, 4, [f"predict.py: note: {note}"])
    _, lines, _ = run(capsys, pictures, "--run", REFERENCE, "--json")
    assert json.loads("\n".join(lines))["notes"] == [note]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(pictures, refused, value):
    network = build("fast")
    with torch.no_grad():
        next(network.parameters()).view(-1)[-1] = value
    make_run(pictures, network, model="fast")
    line = refused(predict, pictures / "a.png", "--run", pictures)
    assert "weights.safetensors holds weights that are not finite" in line


def test_a_run_on_digits_is_asked_with_its_own_classes_and_normalisation(pictures):
    network = build("fast")
    make_run(pictures, network, model="fast", dataset="digits")
    trained = predict.trained_network(pictures)
    data = load("digits")
    assert trained[2:] == ("digits", data.classes, data.mean, data.std)
    assert trained.classes[3] == "digit 3"
    cifar10 = predict.trained_network(REFERENCE)
    assert cifar10[2:] == ("cifar10", CLASSES, MEAN, STD)
    for pixels, expected in zip(data.test_images[:3], utils.probabilities(network, data), strict=False):
        Image.fromarray(pixels).save(pictures / "a.png")
        ((_, answer),) = predict.answers(trained, [pictures / "a.png"])
        assert [answer[name] for name in data.classes] == pytest.approx(expected.tolist(), abs=1e-5)


def test_test_images_as_files_get_the_networks_own_answers(tmp_path, cifar10):
    few = cifar10._replace(test_images=cifar10.test_images[:50], test_labels=cifar10.test_labels[:50])
    for number, pixels in enumerate(few.test_images):
        Image.fromarray(pixels).save(tmp_path / f"{number:02}.png")
    trained = predict.trained_network(REFERENCE)
    expected = utils.probabilities(trained.network, few)
    given = [answer for _, answer in predict.answers(trained, [tmp_path])]
    rows = np.array([[answer[name] for name in CLASSES] for answer in given])
    assert np.allclose(rows, expected, atol=1e-5)
    assert (rows.argmax(1) == few.test_labels).mean() > 0.8


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
