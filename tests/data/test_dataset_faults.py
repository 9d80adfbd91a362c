"""dataset.load: what is said of data that are not right."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st
from made_data import SIZES, make_images, png, small, write_batches, write_parquet

from s9.data import cifar10
from s9.data.sources import load
from s9.errors import UserError

ONE = png(make_images(1)[0])
TRANSPARENT = cv2.imencode(".png", np.zeros((32, 32, 4), np.uint8))[1].tobytes()


def refusal(folder: Path | str, name: str = "cifar10") -> str:
    """What load says about a folder: one line of decent length that names it."""
    with pytest.raises(UserError) as caught:
        load(name, folder)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 300 + len(str(folder))
    assert str(folder) in message
    return message


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
    for split in SIZES:
        write_parquet(tmp_path / f"{split}-00000-of-00001.parquet", images, labels)
    assert problem in refusal(tmp_path)


@examples(100)
@given(place=st.integers(0, 10**4), new=st.binary(max_size=3), gone=st.integers(0, 3))
def test_no_byte_of_a_parquet_file_changes_an_image(tmp_path_factory, place, new, gone):
    """The file is refused, or each image is one of the file's own."""
    folder = tmp_path_factory.getbasetemp() / "changed parquet"
    if not folder.exists():
        folder.mkdir()
        for split in SIZES:
            write_parquet(
                folder / f"{split}-0.parquet", [png(image) for image in make_images(10)], [*range(10)]
            )
    content = (folder / "test-0.parquet").read_bytes()
    place %= len(content)
    (folder / "train-0.parquet").write_bytes(content[:place] + new + content[place + gone :])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cifar10, "PER_CLASS", {"train": 1, "test": 1})
        try:
            data = load("cifar10", folder)
        except UserError as error:
            assert "get it again" in str(error) and "\n" not in str(error)
            return
    assert {it.tobytes() for it in data.train_images} <= {it.tobytes() for it in make_images(10)}


@pytest.mark.parametrize("name", ["data_batch_5", "test_batch", "batches.meta"])
@pytest.mark.parametrize("damage", ["changed", "deleted"])
def test_damaged_batches(tmp_path, monkeypatch, name, damage):
    path = write_batches(tmp_path, small(), monkeypatch) / "cifar-10-batches-py" / name
    content = path.read_bytes()
    path.unlink()
    if damage == "changed":
        path.write_bytes(content[:-1] + b"?")
    assert "MD5" in refusal(tmp_path)
    assert "MD5" in refusal(tmp_path, "auto")


def test_batches_are_not_unpickled_before_they_are_checked(tmp_path, monkeypatch):
    """Unpickling runs what a file says: nothing that is not the published file may get that far."""
    write_batches(tmp_path, small(), monkeypatch)
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"cos\nabort\n(tR.")
    assert "MD5" in refusal(tmp_path)
