"""Run folders damaged at random: one line that names the file, exit code 2, and every file as it was."""

import contextlib
import dataclasses
import io
import json
import tempfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from fuzzing import WORDS, bad_inputs, damaged_json, json_values, was_refused
from hypothesis import assume, given
from hypothesis import strategies as st
from sandbox import HISTORY

import assignment
import train
import utils
from model import build
from s9 import records
from s9.data.sources import load
from s9.engine import checkpoint, hardware
from s9.engine.optimizer import make_optimizer
from s9.settings import Settings

FIELDS = [field.name for field in dataclasses.fields(Settings)]
EVIDENCE = (records.SETTINGS, records.HISTORY, records.LOG, records.WEIGHTS)


@contextlib.contextmanager
def damaged(path, content):
    """A file with another content: None for no file, a folder in its place for `FOLDER`."""
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


FOLDER = "a folder"
GONE = st.sampled_from([None, FOLDER])


def wrong_for(kind):
    """JSON values of another type than the field's; a whole number will do where a float is wanted."""
    fits = {"int": int, "float": int | float, "str": str, "bool": bool}[kind]
    likely = st.sampled_from([True, 1, 8.5, "8", None, [8]])
    return (likely | json_values()).filter(
        lambda value: not isinstance(value, fits) or (isinstance(value, bool) and kind != "bool")
    )


SENSELESS = {
    "epochs": st.integers(max_value=0) | st.integers(100_001),
    "batch_size": st.integers(max_value=0) | st.integers(50_001),
    "learning_rate": st.floats(max_value=0) | st.floats(101) | st.just(float("nan")),
    "bias_rate": st.floats(max_value=-0.1) | st.floats(1_001) | st.just(float("nan")),
    "muon_rate": st.floats(max_value=-0.1) | st.floats(1.1) | st.just(float("nan")),
    "weight_decay": st.floats(max_value=-0.1) | st.floats(1.1) | st.just(float("nan")),
    "label_smoothing": st.floats(max_value=-0.1) | st.floats(1.1) | st.just(float("nan")),
    "augmentation": st.floats(max_value=-0.1) | st.floats(1.1) | st.just(float("nan")),
    "shift": st.floats(max_value=-0.1) | st.floats(1.1) | st.just(float("nan")),
    "first_size": st.integers(max_value=7) | st.integers(33),
    "seed": st.integers(max_value=-1) | st.integers(2**63),
}
KINDS = {field.name: getattr(field.type, "__name__", field.type) for field in dataclasses.fields(Settings)}


@st.composite
def changed_settings(draw):
    """A record with one setting missing, one too many, or one that no run can have."""
    given = dataclasses.asdict(Settings(epochs=2))
    name = draw(st.sampled_from(FIELDS))
    match draw(st.sampled_from(["missing", "extra", "type", "type", "value", "value"])):
        case "missing":
            del given[name]
        case "extra":
            given[draw(WORDS.filter(lambda word: word not in FIELDS))] = draw(json_values())
        case "type":
            given[name] = draw(wrong_for(KINDS[name]))
        case "value":
            name = draw(st.sampled_from(sorted(SENSELESS)))
            given[name] = draw(SENSELESS[name])
    return json.dumps({"settings": given}).encode()


BAD_SETTINGS = st.one_of(
    GONE,
    damaged_json(st.sampled_from(["settings", *FIELDS])),
    changed_settings(),
    changed_settings(),
    json_values().map(lambda value: json.dumps({"settings": value}).encode()),
)
BAD_HISTORY = st.one_of(
    GONE,
    st.binary(max_size=40),
    WORDS.map(str.encode),
    st.lists(st.lists(WORDS, max_size=8).map(",".join), max_size=4).map(
        lambda rows: "\n".join(rows).encode()
    ),
    st.lists(st.lists(st.floats() | st.integers(), min_size=6, max_size=8), max_size=3).map(
        lambda rows: "\n".join(
            [",".join(records.Epoch._fields), *(",".join(map(str, row)) for row in rows)]
        ).encode()
    ),
)
BAD_LOG = GONE | st.binary(max_size=20).map(lambda content: content + b"\xff")
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
BAD_RECORD = st.one_of(
    st.tuples(st.just(records.SETTINGS), BAD_SETTINGS),
    st.tuples(st.just(records.SETTINGS), BAD_SETTINGS),
    st.tuples(st.just(records.HISTORY), BAD_HISTORY),
    st.tuples(st.just(records.LOG), BAD_LOG),
)


def refuses(sandbox, command, arguments, name, content):
    with damaged(sandbox.run / name, content):
        assert name in sandbox.refuses(command, arguments, (name, content and hash(content)))


@bad_inputs(200)
@given(BAD_RECORD, st.sampled_from(["evaluate", "audit", "qna", "readme", "figures"]))
def test_a_damaged_record_is_refused_by_every_command(sandbox, damage, command):
    if command == "evaluate":
        refuses(sandbox, train, ["--evaluate", "run", "--data-dir", "nowhere"], *damage)
    else:
        refuses(sandbox, assignment, [command, "--run", "run"], *damage)


@bad_inputs(60)
@given(BAD_WEIGHTS)
def test_damaged_weights_are_not_evaluated(sandbox, content):
    refuses(sandbox, train, ["--evaluate", "run", "--data-dir", "nowhere"], records.WEIGHTS, content)


@bad_inputs(6)
@given(BAD_WEIGHTS)
def test_damaged_weights_fail_the_audit(sandbox, content):
    with damaged(sandbox.run / records.WEIGHTS, content):
        assert sandbox.call(assignment, ["audit", "--run", "run"]) == (1, "")
    was_refused(content and hash(content))


@bad_inputs(40)
@given(BAD_SETTINGS, st.booleans())
def test_a_damaged_run_is_not_trained_over(sandbox, content, resume):
    assume(content is not None)  # Without settings.json it is no run.
    arguments = ["--dataset", "digits", "--out", "run", *["--resume"] * resume]
    with damaged(sandbox.run / records.SETTINGS, content):
        line = sandbox.refuses(train, arguments, (resume, content and hash(content)))
    assert (records.SETTINGS if resume else "already holds a run") in line


@pytest.fixture(scope="module")
def resumable(sandbox):
    """A run on the digits, stopped after its first epoch of two."""
    settings = Settings(dataset="digits", epochs=2)
    folder = sandbox.folder / "resumable"
    folder.mkdir()
    network = build(settings.model)
    run = records.Run(folder, settings, facts_here(), HISTORY[:1], "Epoch 1\nTrain\nTest\n\n")
    optimizer, scheduler = make_optimizer(network, settings, 24)
    accelerator = hardware.make_accelerator("cpu", "float32")
    parts = {"network": network, "optimizer": optimizer, "scheduler": scheduler}
    utils._keep(run, parts, utils.Progress(), accelerator)
    return folder


def facts_here():
    return records.collect_facts(load("digits").facts(), torch.device("cpu"), "float32", 0)


RESUME = ["--dataset", "digits", "--epochs", "2", "--device", "cpu", "--precision", "float32"]
RESUME += ["--workers", "0", "--out", "resumable", "--resume"]
PARTS = ("settings", "facts", "progress", "network", "optimizer", "scheduler", "random", "history", "log")


def checkpoint_state(content):
    return torch.load(io.BytesIO(content.partition(b"\n")[2]), weights_only=True)


@bad_inputs(30, out_of=50)
@given(st.data())
def test_a_damaged_checkpoint_is_not_resumed_from(sandbox, resumable, data):
    path = resumable / records.CHECKPOINT
    whole = path.read_bytes()
    match data.draw(st.sampled_from(["bytes", "cut", "object", "missing", "wrong"])):
        case "bytes":
            content = data.draw(st.binary(max_size=60))
        case "cut":
            content = whole[: data.draw(st.integers(0, len(whole) - 1))]
        case kind:  # With a checksum that is right: made by hand.
            state = data.draw(json_values())
            if kind != "object":
                name = data.draw(st.sampled_from(PARTS))
                state = checkpoint_state(whole) | {name: state}
            if kind == "missing":
                del state[name]
            assume(kind != "wrong" or name in ("settings", "facts", "network", "optimizer"))
            with tempfile.TemporaryDirectory() as folder:
                checkpoint.save(Path(folder), state)
                content = (Path(folder) / records.CHECKPOINT).read_bytes()
    with damaged(path, content):
        assert records.CHECKPOINT in sandbox.refuses(train, RESUME, hash(content))


def test_a_finished_run_without_its_checkpoint_is_not_trained_over(sandbox, resumable):
    """As in a clone: git leaves the checkpoint out. --resume began anew and wrote over the results."""
    with damaged(resumable / records.CHECKPOINT, None):
        code, line = sandbox.call(train, RESUME)
    assert code == 2 and "no checkpoint to go on from" in line


README_FACTS = ("data", "device", "threads", "precision", "python", "versions", "commit")
"""What the README shows."""


@bad_inputs(20, out_of=35)
@given(
    st.one_of(
        st.tuples(st.sampled_from(README_FACTS), st.none()),
        st.tuples(
            st.sampled_from(["data", "versions"]), json_values().filter(lambda it: not isinstance(it, dict))
        ),
    ),
    st.sampled_from([[], ["--check"]]),
)
def test_a_record_without_its_facts_is_not_shown(sandbox, fact, check):
    name, value = fact
    record = json.loads((sandbox.run / records.SETTINGS).read_text(encoding="utf-8"))
    record |= {name: value}
    if value is None:
        del record[name]
    content = json.dumps(record).encode()
    refuses(sandbox, assignment, ["readme", "--run", "run", *check], records.SETTINGS, content)


def test_the_runs_themselves_are_good_ones(sandbox, resumable):
    """Else everything above could pass by refusing all."""
    assert records.read(sandbox.run).settings == Settings(epochs=2)
    records.load_weights(sandbox.run, build("reference"))
    with pytest.raises(AssertionError, match="training began"):
        sandbox.call(train, RESUME)
