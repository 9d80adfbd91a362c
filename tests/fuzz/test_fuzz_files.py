"""Files damaged at random, read by the functions that read them: UserError, or exactly what is in them."""

import csv
import dataclasses
import io
import json
import os

import pytest
from fuzzing import (
    LONG,
    WORDS,
    assert_user_error,
    bad_inputs,
    damaged_json,
    examples,
    json_values,
    was_refused,
)
from hypothesis import assume, given
from hypothesis import strategies as st

from s9 import records
from s9.data.sources import load
from s9.errors import UserError
from s9.records import Epoch
from s9.settings import PRESETS, Settings
from tools import benchmark

NUMBERS = {"learning_rate": 100, "train_loss": 1e6, "train_accuracy": 100, "test_loss": 1e6}
NUMBERS |= {"test_accuracy": 100, "seconds": 1e6}
ROWS = st.fixed_dictionaries({name: st.floats(0, high) for name, high in NUMBERS.items()})
HISTORIES = st.lists(ROWS, min_size=1, max_size=6).map(
    lambda rows: [records.rounded(Epoch(number, **row)) for number, row in enumerate(rows, 1)]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


def table(text):
    return list(csv.reader(io.StringIO(text)))


def untable(rows):
    return "\n".join(",".join(row) for row in rows) + "\n"


@examples(60)
@given(HISTORIES)
def test_a_history_reads_back_as_it_was_written(folder, history):
    path = folder / records.HISTORY
    path.write_text(records.format_history(history), encoding="utf-8")
    assert records.read_history(path) == history
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))  # as git may check it out
    assert records.read_history(path) == history


NO_CELL = st.one_of(
    WORDS.filter(lambda word: not word.isdecimal() and not set(word) & set('",')),
    st.sampled_from(
        ["nan", "inf", "-inf", "-1.0", "1e3", " 1.0", "1_0", "0x1", "1,0", "", "٣", "1.00000000"]
    ),
    st.integers(max_value=-1).map(str),
)


@st.composite
def broken_histories(draw):
    """Text that no run writes: of another shape, or with a cell that is none."""
    rows = table(records.format_history(draw(HISTORIES)))
    row = draw(st.integers(1, len(rows) - 1))
    column = draw(st.integers(0, 6))
    kinds = ["cell", "cell", "epoch", "senseless", "percent", "shape", "header", "order", "empty"]
    kind = draw(st.sampled_from(kinds))
    match kind:
        case "cell":
            rows[row][column] = draw(NO_CELL)
        case "epoch":
            rows[row][0] = str(draw(st.integers(0, 9).filter(lambda epoch: epoch != row)))
        case "senseless":  # written as a run would write it
            column = max(column, 1)
            value = draw(st.floats(max_value=-1) | st.sampled_from([float("nan"), float("inf")]))
            rows[row][column] = f"{value:.{records.PLACES[column]}f}"
        case "percent":
            rows[row][draw(st.sampled_from([3, 5]))] = f"{draw(st.floats(100.01, 1e9)):.2f}"
        case "shape":
            change = draw(
                st.sampled_from([lambda cells: cells.pop(column), lambda cells: cells.append("1.0")])
            )
            for cells in draw(st.sampled_from([rows, rows[row : row + 1]])):
                change(cells)
        case "header":
            rows = draw(st.sampled_from([rows[1:], [rows[0][::-1], *rows[1:]], [rows[0], *rows]]))
        case "order":
            rows.insert(draw(st.integers(1, len(rows))), list(rows[row]))
        case "empty":
            rows = rows[: draw(st.integers(0, 1))] + [[]] * draw(st.integers(0, 2))
    return untable(rows)


@bad_inputs(130, out_of=200)
@given(broken_histories())
def test_a_history_that_no_run_writes_is_refused(folder, text):
    path = folder / records.HISTORY
    path.write_text(text, encoding="utf-8")
    message = assert_user_error(records.read_history, path)
    assert str(path) in message
    was_refused(text)


@bad_inputs(60, out_of=130)
@given(HISTORIES, st.integers(0), st.binary(max_size=3), st.integers(0, 3))
def test_a_history_with_changed_bytes_is_never_taken_for_another(folder, history, place, new, gone):
    """It is refused, or what is read is what the file says, cell by cell."""
    path = folder / records.HISTORY
    content = records.format_history(history).encode()
    place %= len(content) + 1
    content = content[:place] + new + content[place + gone :]
    path.write_bytes(content)
    try:
        read = records.read_history(path)
    except UserError as error:
        assert "\n" not in str(error)
        was_refused(content)
    else:
        assert table(records.format_history(read)) == table(content.decode())


@bad_inputs(30, out_of=80)
@given(HISTORIES, st.integers(1))
def test_a_history_cut_short_is_a_shorter_one_or_none(folder, history, cut):
    path = folder / records.HISTORY
    content = records.format_history(history)
    path.write_text(content[: -(cut % len(content) or 1)], encoding="utf-8")
    try:
        read = records.read_history(path)
    except UserError:
        was_refused(path.read_text(encoding="utf-8"))
    else:
        assert read == history[: len(read)]


FLOATS = {"learning_rate": (1e-300, 100), "bias_rate": (0, 1_000), "weight_decay": (0, 1)}
FLOATS |= {"muon_rate": (0, 1), "label_smoothing": (0, 1), "augmentation": (0, 1), "shift": (0, 1)}
WHOLES = {"epochs": (1, 100_000), "batch_size": (1, 50_000), "first_size": (8, 32), "seed": (0, 2**63 - 1)}
SETTINGS = st.builds(
    Settings,
    model=st.sampled_from(sorted(PRESETS)),
    dataset=st.sampled_from(["cifar10", "digits"]),
    validation=st.booleans(),
    **{name: st.floats(*bounds) | st.just(bounds[1]) for name, bounds in FLOATS.items()},
    **{name: st.integers(*bounds) for name, bounds in WHOLES.items()},
)


@pytest.fixture(scope="module")
def run(folder):
    (folder / "run").mkdir()
    (folder / "run" / records.HISTORY).write_text(
        records.format_history([Epoch(1, *[1.0] * 6)]), encoding="utf-8"
    )
    (folder / "run" / records.LOG).write_text("Epoch 1\n", encoding="utf-8")
    return folder / "run"


@examples(60)
@given(SETTINGS, st.dictionaries(WORDS.filter(lambda word: word != "settings"), json_values(), max_size=3))
def test_settings_read_back_as_they_were_written(run, settings, facts):
    record = {"settings": dataclasses.asdict(settings), **facts}
    (run / records.SETTINGS).write_text(json.dumps(record), encoding="utf-8")
    read = records.read(run)
    assert read.settings == settings
    assert json.dumps(read.facts) == json.dumps(facts)  # NaN is no equal of itself


@bad_inputs(60)
@given(SETTINGS, SETTINGS)
def test_a_folder_is_claimed_for_one_run_alone(run, settings, others):
    assume(settings != others)
    (run / records.SETTINGS).write_text(
        json.dumps({"settings": dataclasses.asdict(settings)}), encoding="utf-8"
    )
    before = {path: path.read_bytes() for path in run.iterdir()}
    assert_user_error(records.create_run, settings, run)
    assert_user_error(records.run_to_resume, others, run)
    assert {path: path.read_bytes() for path in run.iterdir()} == before


@bad_inputs(100)
@given(damaged_json(st.sampled_from(["versions", "device", "started", "python", "rows", "scaling", "name"])))
def test_a_damaged_report_is_refused(folder, content):
    path = folder / "bench.json"
    path.write_bytes(content)
    assert str(path) in assert_user_error(benchmark.read_report, path)
    was_refused(content)


REPORT = {
    "device": "a CPU, 2 cores",
    "started": "2026-11-24",
    "python": "3.11.7",
    "versions": {"torch": "2.15.0"},
    "rows": [benchmark.Row("step", "images/s", 250.4, 1001.6, 4.0, 3.0)._asdict()],
    "scaling": {"threads": {"1": 500.0, "2": 1234.4}},
}


@bad_inputs(40, out_of=75)
@given(
    st.sampled_from(["plain", "ours", "ratio", "limit", "rows", "versions", "scaling", "1"]),
    json_values() | st.just(10**400),
)
def test_a_report_with_a_wrong_value_is_refused_or_can_be_shown(folder, name, value):
    report = json.loads(json.dumps(REPORT))
    parts = {**dict.fromkeys(["plain", "ours", "ratio", "limit"], report["rows"][0])}
    parts |= {"1": report["scaling"]["threads"]}
    parts.get(name, report)[name] = value
    path = folder / "bench.json"
    path.write_text(json.dumps(report), encoding="utf-8")
    try:
        assert isinstance(benchmark.format_report(benchmark.read_report(path)), str)
    except UserError as error:
        assert "\n" not in str(error)
        was_refused((name, value))


@bad_inputs(30)
@given(
    st.one_of(WORDS.map("nowhere/{}".format), st.sampled_from(["file", "empty", LONG, "~nobody", "file/a"]))
)
def test_folders_without_data(folder, name):
    (folder / "empty").mkdir(exist_ok=True)
    (folder / "file").touch()
    path = name if name.startswith("~") else os.path.join(folder, name)  # noqa: PTH118
    assert_user_error(load, "cifar10", path)


@bad_inputs(20)
@given(st.sampled_from(["file", LONG, f"a/{LONG}"]), WORDS.filter(lambda word: ".." not in word))
def test_folders_that_cannot_be_made(folder, name, below):
    (folder / "file").touch()
    assert_user_error(records.create_run, Settings(), folder / name / below.strip("/"))
    assert (folder / "file").read_bytes() == b""
