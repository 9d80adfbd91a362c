"""Run folders damaged at random: one line that names the file, exit code 2, and every file as it was."""

import contextlib
import dataclasses
import io
import json

import pytest
import safetensors.torch
import torch
from fuzzing import WORDS, damaged_json, examples, json_values
from hypothesis import given
from hypothesis import strategies as st
from made_runs import FACTS

import assignment
import train
from dataset import loaders
from model import build
from s9 import records
from s9.data.sources import load
from s9.engine import checkpoint
from s9.engine.hardware import make_accelerator
from s9.engine.run import RunState
from s9.errors import UserError
from s9.settings import Settings

FIELDS = {field.name: field for field in dataclasses.fields(Settings)}
FOLDER = "a folder"
GONE = st.sampled_from([None, FOLDER])


@contextlib.contextmanager
def damaged(path, content):
    """A file with another content; None: without the file, FOLDER: with a folder in its place."""
    whole = path.read_bytes()
    path.unlink()
    try:
        if content == FOLDER:
            path.mkdir()
        elif content is not None:
            path.write_bytes(content)
        yield
    finally:
        if content == FOLDER:
            path.rmdir()
        path.write_bytes(whole)


@st.composite
def changed_settings(draw):
    """A record with a fact or setting missing, one too many, or of a wrong type; ranges: test_settings.py."""
    given, facts = dataclasses.asdict(Settings(epochs=2)), {**FACTS, "data": {**FACTS["data"]}}
    match draw(st.sampled_from(["fact", "missing", "extra", "wrong"])):
        case "fact":
            of = draw(st.sampled_from([facts, facts["data"]]))
            del of[draw(st.sampled_from(sorted(of)))]
        case "missing":
            del given[draw(st.sampled_from([name for name in FIELDS if not FIELDS[name].metadata["added"]]))]
        case "extra":
            given[draw(WORDS.filter(lambda word: word not in FIELDS))] = draw(json_values())
        case "wrong":
            given[draw(st.sampled_from(list(FIELDS)))] = draw(st.sampled_from([None, [8], {"a": 8}]))
    return json.dumps({"settings": given, **facts}).encode()


BAD_SETTINGS = st.one_of(
    GONE,
    damaged_json(st.sampled_from(["settings", *FIELDS])),
    changed_settings(),
    json_values().map(lambda value: json.dumps({"settings": value}).encode()),
)

HIGHEST = {"learning_rate": 100, "train_loss": 1e6, "train_accuracy": 100, "test_loss": 1e6}
HIGHEST |= {"test_accuracy": 100, "seconds": 1e6}
ROWS = st.fixed_dictionaries({name: st.floats(0, high) for name, high in HIGHEST.items()})
HISTORIES = st.lists(ROWS, min_size=1, max_size=6).map(
    lambda rows: [
        records.Epoch(*map(round, records.Epoch(number, **row), records.PLACES))
        for number, row in enumerate(rows, 1)
    ]
)
NO_CELL = st.one_of(
    WORDS.filter(lambda word: not word.isdecimal() and not set(word) & set('",')),
    st.sampled_from(["", " 1.0", *"nan inf -inf -1.0 1e3 1_0 0x1 1,0 ٣ 1.00000000".split()]),
    st.integers(max_value=-1).map(str),
)


@st.composite
def broken_histories(draw):
    """Bytes that no run writes: of another shape, or with a value that no run has."""
    header, *rows = (line.split(",") for line in records.format_history(draw(HISTORIES)).splitlines())
    row, column = draw(st.integers(0, len(rows) - 1)), draw(st.integers(0, 6))
    match draw(st.sampled_from(["cell", "epoch", "value", "percent", "shape", "header", "empty"])):
        case "cell":
            rows[row][column] = draw(NO_CELL)
        case "epoch":
            rows[row][0] = str(draw(st.integers(0, 9).filter(lambda epoch: epoch != row + 1)))
        case "value":  # written as a run would write it
            column = max(column, 1)
            value = draw(st.floats(max_value=-1) | st.sampled_from([float("nan"), float("inf")]))
            rows[row][column] = f"{value:.{records.PLACES[column]}f}"
        case "percent":
            rows[row][draw(st.sampled_from([3, 5]))] = f"{draw(st.floats(100.01, 1e9)):.2f}"
        case "shape":
            without = rows[row][:column] + rows[row][column + 1 :]
            rows[row] = draw(st.sampled_from([without, [*rows[row], "1.0"]]))
        case "header":
            header, *rows = draw(st.sampled_from([rows, [header[::-1], *rows], [header, header, *rows]]))
        case "empty":
            rows = draw(st.sampled_from([[], [[]], [[], []]]))
    return ("\n".join(",".join(row) for row in [header, *rows]) + "\n").encode()


BAD_HISTORY = st.one_of(GONE, st.binary(max_size=40), broken_histories())
BAD_RECORD = st.one_of(
    st.tuples(st.just(records.SETTINGS), BAD_SETTINGS),
    st.tuples(st.just(records.HISTORY), BAD_HISTORY),
    st.tuples(st.just(records.LOG), GONE | st.binary(max_size=20).map(lambda content: content + b"\xff")),
)
WHOLE = safetensors.torch.save(build("reference").state_dict(), {"network": "S9Net"})
OTHERS = [
    safetensors.torch.save(build(name).state_dict(), {"network": called})
    for name, called in (("best", "BestNet"), ("fast", "S9Net"), ("reference", "BestNet"))
]
BAD_WEIGHTS = st.one_of(
    GONE,
    st.binary(max_size=60),
    st.integers(0, len(WHOLE) - 1).map(lambda size: WHOLE[:size]),
    st.binary(min_size=1, max_size=9).map(lambda more: WHOLE + more),
    st.tuples(st.integers(0, 7), st.integers(1, 255)).map(
        lambda change: WHOLE[: change[0]] + bytes([WHOLE[change[0]] ^ change[1]]) + WHOLE[change[0] + 1 :]
    ),
    st.sampled_from(OTHERS),
)
EVALUATE = (train, ["--evaluate", "run", "--data-dir", "nowhere"])
COMMANDS = [(assignment, [name, "--run", "run"]) for name in ("audit", "qna", "handin", "readme", "figures")]


@examples(200)
@given(BAD_RECORD, st.sampled_from([EVALUATE, *COMMANDS]))
def test_a_damaged_record_is_refused_by_every_command(sandbox, damage, command):
    name, content = damage
    with damaged(sandbox.run / name, content):
        assert name in sandbox.refuses(*command)


@examples(60)
@given(HISTORIES)
def test_a_history_reads_back_as_it_was_written(tmp_path, history):
    content = records.format_history(history).encode()
    for text in (content, content.replace(b"\n", b"\r\n")):  # the latter as git may check it out
        (tmp_path / records.HISTORY).write_bytes(text)
        assert records.read_history(tmp_path / records.HISTORY) == history


@examples(200)
@given(broken_histories())
def test_a_history_that_no_run_writes_is_refused(tmp_path, content):
    path = tmp_path / records.HISTORY
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        records.read_history(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@examples(60)
@given(BAD_WEIGHTS)
def test_damaged_weights_are_not_loaded(sandbox, content):
    path = sandbox.run / records.WEIGHTS
    with damaged(path, content), pytest.raises(UserError) as caught:
        records.load_weights(sandbox.run, build("reference"))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def resumable(sandbox):
    """A run on the digits, stopped after its first epoch of two."""
    settings = Settings(dataset="digits", epochs=2)
    folder = sandbox.folder / "resumable"
    folder.mkdir()
    data = load("digits")
    facts = records.collect_facts(data.facts(), torch.device("cpu"), "float32", 0)
    history = records.read(sandbox.run).history[:1]
    run = records.Run(folder, settings, facts, history, "Epoch 1\nTrain\nTest\n\n")
    RunState(run, build(settings.model), loaders(data), make_accelerator("cpu", "float32"), False).save()
    return folder


RESUME = ["--dataset", "digits", "--epochs", "2", "--device", "cpu", "--precision", "float32"]
RESUME += ["--workers", "0", "--out", "resumable", "--resume"]
PARTS = ("settings", "facts", "progress", "network", "optimizer", "scheduler", "random", "history", "log")


@examples(30)
@given(st.sampled_from(["object", "missing", "wrong"]), st.data())
def test_a_checkpoint_made_by_hand_is_not_resumed_from(sandbox, resumable, tmp_path_factory, kind, data):
    """Its checksum is right. Others: test_checkpoint.py."""
    path, wrong = resumable / records.CHECKPOINT, data.draw(json_values())
    state = torch.load(io.BytesIO(path.read_bytes().partition(b"\n")[2]), weights_only=True)
    match kind:
        case "object":
            state = wrong
        case "missing":
            del state[data.draw(st.sampled_from(PARTS))]
        case "wrong":
            state[data.draw(st.sampled_from(["settings", "facts", "network", "optimizer"]))] = wrong
    folder = tmp_path_factory.mktemp("checkpoint")
    checkpoint.save(folder, state)
    with damaged(path, (folder / records.CHECKPOINT).read_bytes()):
        assert records.CHECKPOINT in sandbox.refuses(train, RESUME)


def test_the_runs_themselves_are_accepted(sandbox, resumable):
    """Otherwise everything above could pass by refusing all."""
    assert records.read(sandbox.run).settings == Settings(epochs=2)
    records.load_weights(sandbox.run, build("reference"))
    with pytest.raises(AssertionError, match="training or writing began"):
        sandbox.call(train, RESUME)
