"""sources.load: where the data come from, what they are, and what is said of data that are not right."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import REPO
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st
from made_data import ARRAYS, assert_well_formed, make_images, png, small, write_batches, write_parquet

from s9.data import cifar10 as reading
from s9.data import download, sources
from s9.data.cifar10 import CLASSES, MEAN, STD
from s9.data.sources import Data, load
from s9.errors import UserError


def test_real_cifar10_is_whole_with_the_mean_and_deviation_that_the_code_names(cifar10):
    assert_well_formed(cifar10, 50_000, 10_000)
    assert np.bincount(cifar10.train_labels).tolist() == [5_000] * 10
    assert np.bincount(cifar10.test_labels).tolist() == [1_000] * 10
    mean, std = sources.statistics(cifar10.train_images)
    np.testing.assert_array_equal(np.round([mean, std], 4), [MEAN, STD])
    assert (cifar10.name, cifar10.mean, cifar10.std) == ("cifar10", MEAN, STD)
    train, test = ({image.tobytes() for image in images} for images in (cifar10[2], cifar10[4]))
    assert not train & test


@pytest.mark.parametrize("value", [15, 18, 255])
def test_images_of_one_colour_are_refused_however_many(value):
    """OpenCV gives the first a deviation just above zero."""
    with pytest.raises(UserError, match="all training images have one colour"):
        sources.statistics(np.full((161, 32, 32, 3), value, np.uint8))


def test_real_cifar10_shows_what_the_labels_say(cifar10):
    assert cifar10.classes == CLASSES
    assert " ".join(CLASSES) == "airplane automobile bird cat deer dog frog horse ship truck"
    # Sky and sea are blue: a wrong order of channels or of labels would upset that.
    blueness = cifar10.test_images[..., 2].mean((1, 2)) - cifar10.test_images[..., 0].mean((1, 2))
    means = np.bincount(cifar10.test_labels, blueness)
    assert {CLASSES[label] for label in np.argsort(means)[-2:]} == {"airplane", "ship"}


def test_both_layouts_give_the_same_arrays(tmp_path, monkeypatch):
    data = small(30)
    monkeypatch.setattr(reading, "PER_CLASS", {"train": 3, "test": 3})
    (tmp_path / "parquet").mkdir()
    for name, images, labels in (
        ("train-0", data.train_images[:20], data.train_labels[:20]),
        ("train-1", data.train_images[20:], data.train_labels[20:]),
        ("test-0", data.test_images, data.test_labels),
    ):
        write_parquet(tmp_path / "parquet" / f"{name}.parquet", [*map(png, images)], labels.tolist())
    for folder in (write_batches(tmp_path / "batches", data, monkeypatch), tmp_path / "parquet"):
        read = load("cifar10", folder)
        assert_well_formed(read, 30, 30)
        for name in ARRAYS:
            np.testing.assert_array_equal(getattr(read, name), getattr(data, name), err_msg=name)
        assert (read.name, read.classes, read.mean, read.std) == ("cifar10", CLASSES, MEAN, STD)


@pytest.mark.parametrize("name", ["auto", "cifar10"])
def test_order_of_sources(monkeypatch, tmp_path, name):
    given, environment, downloaded = (tmp_path / name for name in ("given", "environment", "downloaded"))
    monkeypatch.setattr(sources, "read_folder", lambda folder: (folder,) * 4)
    monkeypatch.setattr(download, "cifar10", lambda cache: cache or downloaded)

    def chosen(*arguments, **options) -> Path:
        return load(name, *arguments, **options).train_images

    assert chosen() == downloaded
    assert chosen(cache=tmp_path) == tmp_path
    monkeypatch.setenv("CIFAR10_DIR", "")
    assert chosen() == downloaded
    monkeypatch.setenv("CIFAR10_DIR", str(environment))
    assert chosen() == environment
    assert chosen(given) == chosen(str(given)) == given
    for home in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(home, str(tmp_path))
    assert chosen("~/given") == given


def test_auto_goes_on_with_digits_and_says_so_when_nothing_can_be_reached(capsys, tmp_path):
    with pytest.raises(UserError, match="could not be downloaded"):
        load("cifar10", cache=tmp_path)  # the real sources, offline
    capsys.readouterr()
    assert load("auto", cache=tmp_path).name == "digits"
    out = capsys.readouterr().out
    assert "could not be downloaded" in out
    assert "!" * 40 in out and "DIGITS" in out and "say nothing about CIFAR-10" in out


def test_import_asks_nobody_and_warns_of_nothing():
    command = [sys.executable, "-W", "error::UserWarning", "-c", "import dataset"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, encoding="utf-8", timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def refusal(folder: Path | str, name: str = "cifar10") -> str:
    """What load says about a folder: one line of decent length that names it."""
    with pytest.raises(UserError) as caught:
        load(name, folder)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 300 + len(str(folder))
    assert str(folder) in message
    return message


ONE = png(make_images(1)[0])
TRANSPARENT = cv2.imencode(".png", np.zeros((32, 32, 4), np.uint8))[1].tobytes()


@pytest.mark.parametrize("name", ["auto", "cifar10"])
def test_folder_that_is_none(tmp_path, monkeypatch, name):
    """Under auto too: who names a folder wants that one, not digits."""
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "half").mkdir()
    write_parquet(tmp_path / "half" / "train-00000-of-00001.parquet", [ONE], [0])
    problems = {"missing": "does not exist", "half": "holds no", "cifar-10-batches-py": "damaged"}
    for folder, problem in problems.items():
        assert problem in refusal(tmp_path / folder, name)
    monkeypatch.setenv("CIFAR10_DIR", str(tmp_path / "missing"))
    with pytest.raises(UserError, match="does not exist"):
        load(name)


@pytest.mark.parametrize(
    ("images", "labels", "problem"),
    [
        pytest.param([ONE] * 20, list(range(10)) * 2, "5,000 images of each class", id="too few"),
        pytest.param([b"no image"], [0], "not uint8", id="no image"),
        pytest.param([png(np.zeros((28, 28, 3), np.uint8))], [0], "not uint8", id="other size"),
        pytest.param([png(np.zeros((32, 32, 3), np.uint16))], [0], "not uint8", id="image of 16 bits"),
        pytest.param([TRANSPARENT], [0], "not uint8", id="image with transparency"),
        pytest.param([ONE, ONE], [0, None], "damaged", id="label missing"),
        pytest.param([ONE], ["cat"], "damaged", id="label in words"),
    ],
)
def test_parquet_of_something_else(tmp_path, images, labels, problem):
    for split in ("train", "test"):
        write_parquet(tmp_path / f"{split}-00000-of-00001.parquet", images, labels)
    assert problem in refusal(tmp_path)


@examples(100)
@given(place=st.integers(0, 10**4), new=st.binary(max_size=3), gone=st.integers(0, 3))
def test_no_byte_of_a_parquet_file_changes_an_image(tmp_path_factory, place, new, gone):
    """The file is refused, or each image is one of the file's own."""
    folder, images = tmp_path_factory.getbasetemp() / "changed parquet", make_images(10)
    if not folder.exists():
        folder.mkdir()
        write_parquet(folder / "test-0.parquet", [*map(png, images)], [*range(10)])
    content = (folder / "test-0.parquet").read_bytes()
    place %= len(content)
    (folder / "train-0.parquet").write_bytes(content[:place] + new + content[place + gone :])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "PER_CLASS", {"train": 1, "test": 1})
        try:
            data = load("cifar10", folder)
        except UserError as error:
            assert "get it again" in str(error) and "\n" not in str(error)
            return
    assert {it.tobytes() for it in data.train_images} <= {it.tobytes() for it in images}


@pytest.mark.parametrize("change", [None, b"?", b"cos\nabort\n(tR."], ids=["deleted", "damaged", "hostile"])
@pytest.mark.parametrize("name", ["data_batch_5", "test_batch", "batches.meta"])
def test_changed_batches_are_refused_before_they_are_unpickled(tmp_path, monkeypatch, name, change):
    """Unpickling runs what a file says: nothing that is not the published file may get that far."""
    path = write_batches(tmp_path, small(), monkeypatch) / "cifar-10-batches-py" / name
    path.unlink()
    if change:
        path.write_bytes(change)
    assert "MD5" in refusal(tmp_path)
    assert "MD5" in refusal(tmp_path, "auto")


def test_digits_are_grey_split_the_same_each_time_and_without_overlap():
    digits = load("digits")
    assert_well_formed(digits, 1_437, 360)
    assert (digits.name, digits.classes) == ("digits", tuple(f"digit {digit}" for digit in range(10)))
    for images in (digits.train_images, digits.test_images):
        assert (images.min(), images.max()) == (0, 255)
        assert (images[..., :1] == images).all()  # grey
    pixels = digits.train_images / 255
    np.testing.assert_allclose(digits.mean, pixels.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(digits.std, pixels.std((0, 1, 2)), rtol=1e-12)
    train, test = ({image.tobytes() for image in images} for images in (digits[2], digits[4]))
    assert not train & test
    shares = np.bincount(digits.test_labels) / np.bincount(np.append(digits.train_labels, digits.test_labels))
    assert (abs(shares - 0.2) < 0.005).all()
    labels = hashlib.sha256(bytes([*digits.train_labels, *digits.test_labels])).hexdigest()
    assert labels[:16] == "859da86469a170c7"


@pytest.mark.parametrize(("count", "held_out"), [(50_000, 5_000), (200, 20)])
def test_validation_holds_out_the_last_training_images(count, held_out):
    images, labels = np.arange(count), np.arange(count) + 1
    data = Data("cifar10", CLASSES, images, labels, images[:9], labels[:9]).validation()
    for kind, whole in (("images", images), ("labels", labels)):
        np.testing.assert_array_equal(getattr(data, f"train_{kind}"), whole[:-held_out])
        np.testing.assert_array_equal(getattr(data, f"test_{kind}"), whole[-held_out:])


def test_fingerprint_sees_every_pixel_label_and_the_order():
    data = small(20)
    seen = {data.fingerprint()}
    assert re.fullmatch("[0-9a-f]{16}", data.fingerprint())
    assert small(20).fingerprint() in seen
    for name in ARRAYS:
        array = getattr(data, name)
        for position in (0, -1):
            changed = array.copy()
            changed.reshape(-1)[position] ^= 1
            seen.add(data._replace(**{name: changed}).fingerprint())
        seen.add(data._replace(**{name: np.roll(array, 1, axis=0)}).fingerprint())
    assert len(seen) == 1 + 4 * 3
    views = data._replace(train_images=np.asfortranarray(data.train_images))
    assert views.fingerprint() == data.fingerprint()  # the same images, otherwise laid out in memory
