"""Run folders damaged at random: one line that names the file, exit code 2, and every file as it was."""

import contextlib
import dataclasses
import io
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from fuzzing import WORDS, damaged_json, examples, json_values
from hypothesis import assume, given
from hypothesis import strategies as st

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


def wrong_for(field):
    """JSON values of another type than the field's, or outside of its range."""
    kind, low, high = type(field.default), field.metadata["low"], field.metadata["high"]
    fits = int | float if kind is float else kind
    likely = st.sampled_from([True, 1, 8.5, "8", None, [8]])
    other = (likely | json_values()).filter(
        lambda value: not isinstance(value, fits) or (isinstance(value, bool) and kind is not bool)
    )
    if low is None:
        return other
    outside = (st.integers if kind is int else st.floats)().filter(lambda value: not low <= value <= high)
    return other | outside


@st.composite
def changed_settings(draw):
    """A record with one setting missing, one too many, or one that no run can have."""
    given = dataclasses.asdict(Settings(epochs=2))
    field = FIELDS[draw(st.sampled_from(sorted(FIELDS)))]
    kind = draw(st.sampled_from(["missing", "extra", "wrong", "wrong"]))
    if kind == "missing" and not field.metadata["added"]:
        del given[field.name]
    elif kind == "extra":
        given[draw(WORDS.filter(lambda word: word not in FIELDS))] = draw(json_values())
    else:
        given[field.name] = draw(wrong_for(field))
    return json.dumps({"settings": given}).encode()


BAD_SETTINGS = st.one_of(
    GONE,
    damaged_json(st.sampled_from(["settings", *FIELDS])),
    changed_settings(),
    json_values().map(lambda value: json.dumps({"settings": value}).encode()),
)
ROWS = st.lists(st.lists(st.floats() | st.integers(), min_size=6, max_size=8), max_size=3)
BAD_HISTORY = st.one_of(
    GONE,
    st.binary(max_size=40),
    st.lists(st.lists(WORDS, max_size=8).map(",".join), max_size=4).map("\n".join).map(str.encode),
    ROWS.map(
        lambda rows: "\n".join(",".join(map(str, row)) for row in [records.Epoch._fields, *rows]).encode()
    ),
)
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
EVALUATE = ["--evaluate", "run", "--data-dir", "nowhere"]


def refuses(sandbox, command, arguments, name, content):
    with damaged(sandbox.run / name, content):
        assert name in sandbox.refuses(command, arguments)


@examples(200)
@given(BAD_RECORD, st.sampled_from(["evaluate", "audit", "qna", "handin", "readme", "figures"]))
def test_a_damaged_record_is_refused_by_every_command(sandbox, damage, command):
    if command == "evaluate":
        refuses(sandbox, train, EVALUATE, *damage)
    else:
        refuses(sandbox, assignment, [command, "--run", "run"], *damage)


@examples(60)
@given(BAD_WEIGHTS)
def test_damaged_weights_are_not_loaded(sandbox, content):
    path = sandbox.run / records.WEIGHTS
    with damaged(path, content), pytest.raises(UserError) as caught:
        records.load_weights(sandbox.run, build("reference"))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, WHOLE[:1_000], OTHERS[1]], ids=["gone", "cut", "other"])
def test_damaged_weights_fail_the_audit(sandbox, content):
    with damaged(sandbox.run / records.WEIGHTS, content):
        assert sandbox.call(assignment, ["audit", "--run", "run"]) == (1, "")


@examples(20)
@given(BAD_SETTINGS)
def test_a_damaged_run_is_not_trained_over(sandbox, content):
    assume(content is not None)  # Without settings.json it is no run.
    with damaged(sandbox.run / records.SETTINGS, content):
        assert "already holds a run" in sandbox.refuses(train, ["--dataset", "digits", "--out", "run"])


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
    RunState(run, build(settings.model), loaders(data), make_accelerator("cpu", "float32")).save()
    return folder


RESUME = ["--dataset", "digits", "--epochs", "2", "--device", "cpu", "--precision", "float32"]
RESUME += ["--workers", "0", "--out", "resumable", "--resume"]
PARTS = ("settings", "facts", "progress", "network", "optimizer", "scheduler", "random", "history", "log")


@examples(30)
@given(st.data())
def test_a_damaged_checkpoint_is_not_resumed_from(sandbox, resumable, tmp_path_factory, data):
    path = resumable / records.CHECKPOINT
    whole = path.read_bytes()
    match data.draw(st.sampled_from(["bytes", "cut", "object", "missing", "wrong"])):
        case "bytes":
            content = data.draw(st.binary(max_size=60))
        case "cut":
            content = whole[: data.draw(st.integers(0, len(whole) - 1))]
        case kind:  # Made by hand, with a correct checksum.
            state = data.draw(json_values())
            if kind != "object":
                name = data.draw(st.sampled_from(PARTS))
                good = torch.load(io.BytesIO(whole.partition(b"\n")[2]), weights_only=True)
                state = good | {name: state}
            if kind == "missing":
                del state[name]
            assume(kind != "wrong" or name in ("settings", "facts", "network", "optimizer"))
            folder = tmp_path_factory.mktemp("checkpoint")
            checkpoint.save(folder, state)
            content = Path(folder, records.CHECKPOINT).read_bytes()
    with damaged(path, content):
        assert records.CHECKPOINT in sandbox.refuses(train, RESUME)


@pytest.mark.parametrize("name", ["data", "device", "threads", "precision", "python", "versions", "commit"])
@pytest.mark.parametrize("wrong", [{}, {"data": None, "versions": "text"}])
def test_a_record_without_the_facts_that_a_page_shows_is_refused(sandbox, name, wrong):
    record = json.loads((sandbox.run / records.SETTINGS).read_text(encoding="utf-8"))
    del record[name]
    content = json.dumps(record | wrong).encode()
    refuses(sandbox, assignment, ["readme", "--run", "run"], records.SETTINGS, content)


def test_the_runs_themselves_are_accepted(sandbox, resumable):
    """Otherwise everything above could pass by refusing all."""
    assert records.read(sandbox.run).settings == Settings(epochs=2)
    records.load_weights(sandbox.run, build("reference"))
    with pytest.raises(AssertionError, match="training or writing began"):
        sandbox.call(train, RESUME)
