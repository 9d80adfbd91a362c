"""Files damaged at random, read by the functions that read them: UserError, or exactly what is in them."""

import csv
import dataclasses
import io
import json

import pytest
from fuzzing import LONG, WORDS, damaged_json, examples, json_values
from hypothesis import given
from hypothesis import strategies as st

from s9 import records
from s9.data.sources import load
from s9.errors import UserError
from s9.records import Epoch
from s9.settings import PRESETS, Settings
from tools import benchmark

HIGHEST = {"learning_rate": 100, "train_loss": 1e6, "train_accuracy": 100, "test_loss": 1e6}
HIGHEST |= {"test_accuracy": 100, "seconds": 1e6}
ROWS = st.fixed_dictionaries({name: st.floats(0, high) for name, high in HIGHEST.items()})
HISTORIES = st.lists(ROWS, min_size=1, max_size=6).map(
    lambda rows: [records.rounded(Epoch(number, **row)) for number, row in enumerate(rows, 1)]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    (folder / "empty").mkdir()
    (folder / "file").touch()
    return folder


def table(text):
    return list(csv.reader(io.StringIO(text)))


def read_or_refused(read, path, content):
    """What `read` makes of a file with this content; None if it answers with UserError, in one line."""
    path.write_bytes(content)
    try:
        return read(path)
    except UserError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return None


@examples(60)
@given(HISTORIES)
def test_a_history_reads_back_as_it_was_written(folder, history):
    content = records.format_history(history).encode()
    for text in (content, content.replace(b"\n", b"\r\n")):  # the latter as git may check it out
        assert read_or_refused(records.read_history, folder / records.HISTORY, text) == history


NO_CELL = st.one_of(
    WORDS.filter(lambda word: not word.isdecimal() and not set(word) & set('",')),
    st.sampled_from(
        ["nan", "inf", "-inf", "-1.0", "1e3", " 1.0", "1_0", "0x1", "1,0", "", "٣", "1.00000000"]
    ),
    st.integers(max_value=-1).map(str),
)


@st.composite
def broken_histories(draw):
    """Text that no run writes: of another shape, or with a value that no run has."""
    rows = table(records.format_history(draw(HISTORIES)))
    row = draw(st.integers(1, len(rows) - 1))
    column = draw(st.integers(0, 6))
    match draw(st.sampled_from(["cell", "epoch", "value", "percent", "shape", "header", "order", "empty"])):
        case "cell":
            rows[row][column] = draw(NO_CELL)
        case "epoch":
            rows[row][0] = str(draw(st.integers(0, 9).filter(lambda epoch: epoch != row)))
        case "value":  # written as a run would write it
            column = max(column, 1)
            value = draw(st.floats(max_value=-1) | st.sampled_from([float("nan"), float("inf")]))
            rows[row][column] = f"{value:.{records.PLACES[column]}f}"
        case "percent":
            rows[row][draw(st.sampled_from([3, 5]))] = f"{draw(st.floats(100.01, 1e9)):.2f}"
        case "shape":
            changed = draw(
                st.sampled_from([rows[row][:column] + rows[row][column + 1 :], [*rows[row], "1.0"]])
            )
            rows[row] = changed
        case "header":
            rows = draw(st.sampled_from([rows[1:], [rows[0][::-1], *rows[1:]], [rows[0], *rows]]))
        case "order":
            rows.insert(draw(st.integers(1, len(rows))), list(rows[row]))
        case "empty":
            rows = rows[: draw(st.integers(0, 1))] + [[]] * draw(st.integers(0, 2))
    return "\n".join(",".join(row) for row in rows) + "\n"


@examples(200)
@given(broken_histories())
def test_a_history_that_no_run_writes_is_refused(folder, text):
    assert read_or_refused(records.read_history, folder / records.HISTORY, text.encode()) is None


@examples(150)
@given(HISTORIES, st.integers(0), st.binary(max_size=3), st.integers(0, 3) | st.just(10_000))
def test_a_history_with_changed_bytes_is_never_taken_for_another(folder, history, place, new, gone):
    """It is refused, or what is read is what the file says, cell by cell."""
    content = records.format_history(history).encode()
    place %= len(content) + 1
    content = content[:place] + new + content[place + gone :]
    read = read_or_refused(records.read_history, folder / records.HISTORY, content)
    assert read is None or table(records.format_history(read)) == table(content.decode())


def values(field):
    """The values that a field of Settings takes."""
    low, high = field.metadata["low"], field.metadata["high"]
    if low is None:
        return {bool: st.booleans(), str: st.sampled_from(sorted(PRESETS))}[type(field.default)]
    return (st.integers if type(field.default) is int else st.floats)(low, high) | st.just(high)


SETTINGS = st.builds(Settings, **{field.name: values(field) for field in dataclasses.fields(Settings)})


@examples(60)
@given(SETTINGS, st.dictionaries(WORDS.filter(lambda word: word != "settings"), json_values(), max_size=3))
def test_settings_read_back_as_they_were_written(folder, settings, facts):
    (folder / records.HISTORY).write_text(records.format_history([Epoch(1, *[1.0] * 6)]), encoding="utf-8")
    (folder / records.LOG).write_text("Epoch 1\n", encoding="utf-8")
    record = {"settings": dataclasses.asdict(settings), **facts}
    (folder / records.SETTINGS).write_text(json.dumps(record), encoding="utf-8")
    read = records.read(folder)
    assert read.settings == settings
    assert json.dumps(read.facts) == json.dumps(facts)  # NaN is not equal to itself


@examples(100)
@given(damaged_json(st.sampled_from(["versions", "device", "started", "python", "rows", "name"])))
def test_a_damaged_report_is_refused(folder, content):
    assert read_or_refused(benchmark.read_report, folder / "bench.json", content) is None


@pytest.mark.parametrize("name", ["nowhere", "file", "empty", LONG, "~nobody", "file/a"])
def test_folders_without_data_are_refused(folder, monkeypatch, name):
    monkeypatch.chdir(folder)
    with pytest.raises(UserError):
        load("cifar10", name)


@pytest.mark.parametrize("name", ["file", "file/a", LONG, f"empty/{LONG}/a"])
def test_folders_that_cannot_be_made_are_refused(folder, monkeypatch, name):
    monkeypatch.chdir(folder)
    with pytest.raises(UserError):
        records.create_run(Settings(), folder / name)
    assert (folder / "file").read_bytes() == b""
