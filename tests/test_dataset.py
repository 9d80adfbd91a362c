"""dataset.load: where the data come from, what they are, and what is said of data that are not right."""

import hashlib
import pickle
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import requests
from torchvision.datasets import CIFAR10

import dataset
import download
from dataset import CLASSES, MEAN, STD, Data, load
from errors import UserError

SIZES = {"train": 50_000, "test": 10_000}
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


def make_images(count: int) -> np.ndarray:
    """Images that differ from one another, and from their own mirror images in space and colour."""
    blocks = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), np.uint8)
    return blocks.repeat(8, axis=1).repeat(8, axis=2)


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


@pytest.fixture(scope="module")
def made() -> Data:
    """As many images and labels as CIFAR-10 has, 500 different images in a fixed disorder."""
    random = np.random.default_rng(1)
    images, arrays = make_images(500), []
    for count in SIZES.values():
        arrays += [images[random.integers(0, 500, count)], random.permutation(np.arange(count) % 10)]
    return Data("cifar10", CLASSES, *arrays)


def write_parquet(path: Path, images: list, labels: list) -> None:
    """As in the Hugging Face data set; `images` are files' contents."""
    rows = [{"bytes": image, "path": None} for image in images]
    table = pyarrow.table({"img": rows, "label": labels})
    pyarrow.parquet.write_table(table, path, row_group_size=4_321)


def write_batches(root: Path, data: Data, monkeypatch) -> Path:
    """Torchvision's layout, whose checksums torchvision expects until the test ends; returns `root`."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    size = -(-len(data.train_images) // 5)
    batches = {
        f"data_batch_{number + 1}": (data.train_images[start:][:size], data.train_labels[start:][:size])
        for number, start in enumerate(range(0, 5 * size, size))
    }
    batches["test_batch"] = (data.test_images, data.test_labels)
    sums = []
    for name, (images, labels) in batches.items():
        planes = images.transpose(0, 3, 1, 2).reshape(len(images), 3 * 32 * 32)
        content = pickle.dumps({"data": planes, "labels": labels.tolist()})
        (folder / name).write_bytes(content)
        sums.append([name, hashlib.md5(content).hexdigest()])
    content = pickle.dumps({"label_names": list(CLASSES)})
    (folder / "batches.meta").write_bytes(content)
    meta = {
        "filename": "batches.meta",
        "key": "label_names",
        "md5": hashlib.md5(content).hexdigest(),
    }
    monkeypatch.setattr(CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(CIFAR10, "test_list", sums[5:])
    monkeypatch.setattr(CIFAR10, "meta", meta)
    return root


def assert_same(first: Data, second: Data) -> None:
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)
    assert (first.name, first.classes, first.mean, first.std) == (
        second.name,
        second.classes,
        second.mean,
        second.std,
    )


def assert_well_formed(data: Data, train: int, test: int) -> None:
    """The module's promise on shapes and types; contiguous, without which augmenting is far slower."""
    for split, count in (("train", train), ("test", test)):
        images, labels = getattr(data, f"{split}_images"), getattr(data, f"{split}_labels")
        assert images.shape == (count, 32, 32, 3) and images.dtype == np.uint8
        assert labels.shape == (count,) and labels.dtype == np.int64
        assert images.flags.c_contiguous
        assert set(labels) == set(range(10))


def test_real_cifar10_is_whole(cifar10):
    assert_well_formed(cifar10, 50_000, 10_000)
    assert np.bincount(cifar10.train_labels).tolist() == [5_000] * 10
    assert np.bincount(cifar10.test_labels).tolist() == [1_000] * 10
    assert cifar10.name == "cifar10"


def test_real_cifar10_has_the_mean_and_deviation_that_the_code_names(cifar10):
    # Of all pixels of a channel, from how often each of the 256 values occurs: exact.
    for channel in range(3):
        counts = np.bincount(cifar10.train_images[..., channel].ravel(), minlength=256)
        values = np.arange(256) / 255
        mean = np.average(values, weights=counts)
        std = np.average((values - mean) ** 2, weights=counts) ** 0.5
        assert (round(mean, 4), round(std, 4)) == (MEAN[channel], STD[channel])
    assert (cifar10.mean, cifar10.std) == (MEAN, STD)


def test_real_cifar10_shows_what_the_labels_say(cifar10):
    assert cifar10.classes == CLASSES
    assert " ".join(CLASSES) == "airplane automobile bird cat deer dog frog horse ship truck"
    # Colours that anybody would expect, which a wrong order of channels or of labels would upset.
    colours = np.stack(
        [cifar10.test_images[cifar10.test_labels == label].mean((0, 1, 2)) for label in range(10)]
    )
    blueness = colours[:, 2] - colours[:, 0]
    assert {CLASSES[label] for label in np.argsort(blueness)[-2:]} == {"airplane", "ship"}
    greenness = colours[:, 1] - colours[:, [0, 2]].mean(1)
    assert CLASSES[np.argmax(greenness)] in ("frog", "deer")
    assert CLASSES[np.argmax(colours.sum(1))] == "airplane"


def test_real_cifar10_has_no_training_image_in_its_test_set(cifar10):
    train, test = ({image.tobytes() for image in images} for images in (cifar10[2], cifar10[4]))
    assert not train & test


def test_both_layouts_give_the_same_arrays(made, tmp_path, monkeypatch):
    parquet = tmp_path / "parquet"
    parquet.mkdir()
    for split, parts in (("train", 2), ("test", 1)):
        contents = {}
        images = [
            contents.setdefault(image.tobytes(), png(image)) for image in getattr(made, f"{split}_images")
        ]
        labels = getattr(made, f"{split}_labels").tolist()
        for part in range(parts):
            bounds = slice(part * len(images) // parts, (part + 1) * len(images) // parts)
            name = f"{split}-{part:05}-of-{parts:05}.parquet"
            write_parquet(parquet / name, images[bounds], labels[bounds])
    batches = write_batches(tmp_path / "batches", made, monkeypatch)

    from_batches = load("cifar10", batches)
    assert_well_formed(from_batches, 50_000, 10_000)
    assert_same(from_batches, made)
    from_parquet = load("cifar10", parquet)
    assert_well_formed(from_parquet, 50_000, 10_000)
    assert_same(from_parquet, made)


@pytest.fixture
def sources(monkeypatch, tmp_path):
    """Three folders, and a stand-in for reading one: load then returns the folder that it chose."""
    folders = {name: tmp_path / name for name in ("given", "environment", "downloaded")}
    monkeypatch.setattr(dataset, "_read_folder", lambda folder: folder)
    monkeypatch.setattr(download, "cifar10", lambda cache=None: folders["downloaded"])
    return folders


@pytest.mark.parametrize("name", ["auto", "cifar10"])
def test_order_of_sources(sources, monkeypatch, name):
    assert load(name) == sources["downloaded"]
    monkeypatch.setenv("CIFAR10_DIR", "")
    assert load(name) == sources["downloaded"]
    monkeypatch.setenv("CIFAR10_DIR", str(sources["environment"]))
    assert load(name) == sources["environment"]
    assert load(name, sources["given"]) == sources["given"]
    assert load(name, str(sources["given"])) == sources["given"]


def test_the_cache_is_handed_on(sources, monkeypatch, tmp_path):
    monkeypatch.setattr(download, "cifar10", lambda cache: cache)
    assert load("cifar10", cache=tmp_path) == tmp_path


def test_home_is_understood(sources, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert load("cifar10", "~/given") == sources["given"]


def test_auto_goes_on_with_digits_and_says_so_when_nothing_can_be_reached(capsys, tmp_path):
    data = load("auto", cache=tmp_path)  # the real sources, offline
    assert data.name == "digits"
    out = capsys.readouterr().out
    assert "could not be downloaded" in out
    assert "!" * 40 in out and "DIGITS" in out and "say nothing about CIFAR-10" in out


def test_cifar10_by_name_is_never_replaced(tmp_path):
    with pytest.raises(UserError, match="could not be downloaded"):
        load("cifar10", cache=tmp_path)


def test_digits_by_name_need_nothing_and_say_nothing(capsys, monkeypatch):
    monkeypatch.setenv("CIFAR10_DIR", "/no/such/folder")
    assert load("digits").name == "digits"
    assert capsys.readouterr().out == ""


def test_tests_have_no_network():
    for url in ("https://www.cs.toronto.edu/", "http://192.0.2.1/"):
        with pytest.raises(requests.ConnectionError):
            requests.get(url, timeout=30)
        with (
            pytest.raises(requests.ConnectionError, match="tests are offline"),
            requests.Session() as session,
        ):
            session.trust_env = False  # past the switched-off proxy
            session.get(url, timeout=30)


def test_import_asks_nobody_and_warns_of_nothing():
    repo = Path(dataset.__file__).parent
    command = [sys.executable, "-W", "error::UserWarning", "-c", "import dataset"]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def refusal(folder: Path | str, name: str = "cifar10") -> str:
    """What load says about a folder: one line of decent length that names it."""
    with pytest.raises(UserError) as caught:
        load(name, folder)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 300 + len(str(folder))
    assert str(folder) in message
    return message


def test_unknown_data_set():
    with pytest.raises(UserError, match="unknown dataset 'cifar100': choose one of auto, cifar10, digits"):
        load("cifar100")


@pytest.mark.parametrize("name", ["auto", "cifar10"])
@pytest.mark.parametrize("way", ["argument", "environment"])
def test_folder_that_is_none(tmp_path, monkeypatch, name, way):
    """Under auto too: who names a folder wants that one, not digits."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for folder, problem in (
        ("missing", "does not exist"),
        ("file", "is a file"),
        ("empty", "holds no CIFAR"),
    ):
        if way == "environment":
            monkeypatch.setenv("CIFAR10_DIR", str(tmp_path / folder))
            with pytest.raises(UserError, match=problem):
                load(name)
        else:
            assert problem in refusal(tmp_path / folder, name)


def test_folder_of_batches_that_is_missing_or_empty(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    assert "does not exist" in refusal(folder)
    folder.mkdir()
    assert "damaged" in refusal(folder)


@pytest.mark.parametrize("split", SIZES)
def test_half_a_pair_of_parquet_files(tmp_path, split):
    write_parquet(tmp_path / f"{split}-00000-of-00001.parquet", [png(make_images(1)[0])], [0])
    assert "it needs" in refusal(tmp_path)


ONE = png(make_images(1)[0])


@pytest.mark.parametrize(
    ("images", "labels", "problem"),
    [
        pytest.param([ONE] * 20, list(range(10)) * 2, "50,000", id="too few"),
        pytest.param([b""], [0], "damaged", id="empty image"),
        pytest.param([b"no image"], [0], "damaged", id="no image"),
        pytest.param([ONE[:60]], [0], "damaged", id="half an image"),
        pytest.param([None], [0], "damaged", id="image missing"),
        pytest.param([ONE, png(make_images(1)[0][:16])], [0, 1], "32x16 pixels", id="several sizes"),
        pytest.param([png(np.zeros((28, 28, 3), np.uint8))], [0], "28x28 pixels", id="other size"),
        pytest.param([ONE, ONE], [0, None], "damaged", id="label missing"),
        pytest.param([ONE], ["cat"], "damaged", id="label in words"),
        pytest.param([ONE], [0.5], "damaged", id="broken label"),
        pytest.param([ONE], [-1], "a class", id="negative label"),
        pytest.param([ONE], [10**15], "a class", id="enormous label"),
        pytest.param([], [], "50,000", id="no rows"),
    ],
)
def test_parquet_of_something_else(tmp_path, images, labels, problem):
    for split in SIZES:
        write_parquet(tmp_path / f"{split}-00000-of-00001.parquet", images, labels)
    assert problem in refusal(tmp_path)


@pytest.mark.parametrize(
    "columns", [{"image": [ONE], "label": [0]}, {"img": [ONE], "label": [0]}, {"x": [1]}]
)
def test_parquet_of_other_columns(tmp_path, columns):
    for split in SIZES:
        pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / f"{split}-0.parquet")
    assert "no CIFAR-10 parquet file" in refusal(tmp_path)


@pytest.mark.parametrize("size", [0, 3, 100, 300])
def test_truncated_parquet(tmp_path, size):
    for split in SIZES:
        write_parquet(tmp_path / f"{split}-0.parquet", [ONE] * 10, list(range(10)))
    path = tmp_path / "train-0.parquet"
    path.write_bytes(path.read_bytes()[:size])
    assert "damaged" in refusal(tmp_path)


def small(count: int = 10) -> Data:
    images, labels = make_images(count), np.arange(count) % 10
    return Data("cifar10", CLASSES, images, labels, images[::-1], labels)


@pytest.mark.parametrize("name", ["data_batch_1", "data_batch_5", "test_batch", "batches.meta"])
@pytest.mark.parametrize("damage", ["changed", "truncated", "deleted", "a folder"])
def test_damaged_batches(tmp_path, monkeypatch, name, damage):
    path = write_batches(tmp_path, small(), monkeypatch) / "cifar-10-batches-py" / name
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage == "changed":
        content[-1] ^= 1
        path.write_bytes(content)
    elif damage == "truncated":
        path.write_bytes(content[:-1])
    elif damage == "a folder":
        path.mkdir()
    assert "MD5" in refusal(tmp_path)
    assert "MD5" in refusal(tmp_path, "auto")


def test_batches_are_not_unpickled_before_they_are_checked(tmp_path, monkeypatch):
    """Unpickling runs what a file says: nothing that is not the published file may get that far."""
    write_batches(tmp_path, small(), monkeypatch)
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"cos\nabort\n(tR.")
    assert "MD5" in refusal(tmp_path)


def test_batches_are_found_from_either_folder(tmp_path, monkeypatch):
    """They are read, since the complaint is of how few images they hold."""
    write_batches(tmp_path, small(), monkeypatch)
    assert "50,000" in refusal(tmp_path)
    with pytest.raises(UserError, match="50,000"):
        load("cifar10", str(tmp_path / "cifar-10-batches-py"))


@pytest.mark.parametrize(("old", "new"), [(3, 4), (9, 10)])
def test_wrong_class_counts(made, tmp_path, monkeypatch, old, new):
    """The shapes are right, one label of the test set is not."""
    labels = made.test_labels.copy()
    labels[np.flatnonzero(labels == old)[0]] = new
    write_batches(tmp_path, made._replace(test_labels=labels), monkeypatch)
    assert "the test set is not CIFAR-10's" in refusal(tmp_path)


@pytest.fixture(scope="module")
def digits() -> Data:
    return load("digits")


def test_digits(digits):
    assert_well_formed(digits, 1_437, 360)
    assert digits.name == "digits"
    assert digits.classes == tuple(f"digit {digit}" for digit in range(10))
    for images in (digits.train_images, digits.test_images):
        assert (images.min(), images.max()) == (0, 255)
        assert (images[..., :1] == images).all()  # grey
    pixels = digits.train_images / 255
    np.testing.assert_allclose(digits.mean, pixels.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(digits.std, pixels.std((0, 1, 2)), rtol=1e-12)


def test_digits_are_still_readable(digits):
    """Each label's mean image, 8x8 again, resembles its own digit in the other split most."""
    means = [
        np.stack([images[labels == digit, 2::4, 2::4, 0].mean(0).ravel() for digit in range(10)])
        for images, labels in ((digits[2], digits[3]), (digits[4], digits[5]))
    ]
    assert np.corrcoef(*means)[:10, 10:].argmax(1).tolist() == list(range(10))


def test_digits_split_is_fixed_stratified_and_without_overlap(digits, monkeypatch):
    """Seen on digits that show their own number, in base 17, in their four quarters."""
    bunch = dataset.load_digits()
    numbers = np.arange(len(bunch.target))
    quarters = np.stack([numbers // 17**power % 17 for power in range(4)], 1).reshape(-1, 2, 2)
    bunch.images = quarters.repeat(4, axis=1).repeat(4, axis=2).astype(float)
    monkeypatch.setattr(dataset, "load_digits", lambda: bunch)
    numbered = load("digits")
    splits = []
    for images, labels in (numbered[2:4], numbered[4:6]):
        quarters = np.round(images[:, 8::16, 8::16, 0] / (255 / 16)).astype(int).reshape(-1, 4)
        splits.append(quarters @ 17 ** np.arange(4))
        np.testing.assert_array_equal(bunch.target[splits[-1]], labels)
    assert sorted(np.concatenate(splits)) == numbers.tolist()
    np.testing.assert_array_equal(numbered.train_labels, digits.train_labels)

    shares = np.bincount(digits.test_labels) / np.bincount(bunch.target)
    assert (abs(shares - 0.2) < 0.005).all()
    content = b"".join(split.astype("<i8").tobytes() for split in splits)
    assert hashlib.sha256(content).hexdigest()[:16] == "c2c37eddf53c5760"


def test_digits_are_the_same_every_time(digits):
    assert_same(digits, load("digits"))


def test_validation_holds_out_the_last_training_images(made):
    held_out = made.validation()
    assert len(held_out.train_images) == 45_000 and len(held_out.test_images) == 5_000
    np.testing.assert_array_equal(held_out.train_images, made.train_images[:45_000])
    np.testing.assert_array_equal(held_out.train_labels, made.train_labels[:45_000])
    np.testing.assert_array_equal(held_out.test_images, made.train_images[45_000:])
    np.testing.assert_array_equal(held_out.test_labels, made.train_labels[45_000:])
    assert not np.shares_memory(held_out.test_images, made.test_images)
    assert len(made.train_images) == 50_000
    assert held_out.fingerprint() != made.fingerprint()


def test_validation_of_few_images_holds_out_a_tenth(digits):
    held_out = digits.validation()
    assert (len(held_out.train_images), len(held_out.test_images)) == (1_437 - 143, 143)
    np.testing.assert_array_equal(held_out.test_images, digits.train_images[-143:])


def test_real_validation_set_has_all_classes_alike(cifar10):
    counts = np.bincount(cifar10.validation().test_labels, minlength=10)
    assert counts.min() > 400 and counts.max() < 600


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
