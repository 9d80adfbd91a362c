import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from small import SETTINGS, fit_small

from s9 import records
from s9.engine import checkpoint
from s9.errors import UserError


def state(number):
    return {"settings": asdict(SETTINGS), "number": number, "tensor": torch.arange(number + 1)}


def load(folder):
    return checkpoint.load(folder, SETTINGS)


def test_the_newest_state_comes_back_and_the_one_before_is_kept(tmp_path):
    with pytest.raises(UserError, match="holds no checkpoint: start a new run"):
        load(tmp_path)
    for number in range(3):
        checkpoint.save(tmp_path, state(number))
        assert load(tmp_path)["number"] == number
        assert torch.equal(load(tmp_path)["tensor"], torch.arange(number + 1))
    (tmp_path / records.CHECKPOINT).unlink()
    assert load(tmp_path)["number"] == 1
    assert {path.name for path in tmp_path.iterdir()} == {records.CHECKPOINT}


@pytest.mark.parametrize("way", ["cut", "bit", "checksum", "empty", "foreign"])
def test_a_bad_checkpoint_is_named_and_the_previous_one_takes_its_place(tmp_path, capsys, way):
    for folder, seed in ((tmp_path, 0), (tmp_path / "..", 1)):
        for number in range(2):
            checkpoint.save(folder, {**state(number), "settings": asdict(replace(SETTINGS, seed=seed))})
    path = tmp_path / records.CHECKPOINT
    content = path.read_bytes()
    middle = len(content) // 2
    damaged = {
        "cut": content[:-500],
        "bit": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "checksum": content.replace(b"SHA-256 ", b"SHA-256 0", 1),
        "empty": b"",
        "foreign": (tmp_path / ".." / records.CHECKPOINT).read_bytes(),
    }
    path.write_bytes(damaged[way])
    assert load(tmp_path)["number"] == 0
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert line.startswith(f"{path} cannot be resumed from (it is ")
    checkpoint.save(tmp_path, state(2))  # must not push the bad one into the good one's place
    path.write_bytes(b"")
    assert load(tmp_path)["number"] == 0
    for name in (records.CHECKPOINT, checkpoint.PREVIOUS):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(
        UserError, match=r"checkpoint\.pt cannot .*checkpoint-previous\.pt cannot .*start a new"
    ):
        load(tmp_path)


def test_a_checkpoint_with_a_former_setting_names_it(tmp_path):
    checkpoint.save(tmp_path, {**state(0), "settings": asdict(SETTINGS) | {"full_size": 0.5}})
    with pytest.raises(UserError, match=r"cannot be resumed from \(setting 'full_size' is unknown\)"):
        load(tmp_path)


class Payload:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_loading_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint.save(tmp_path, {**state(0), "code": Payload()})
    with pytest.raises(UserError, match="it holds more than tensors and plain values"):
        load(tmp_path)
    assert not (tmp_path / "executed").exists()


class Killed(BaseException):
    """Stands for a kill: nothing but the test catches it."""


@pytest.mark.parametrize("before", [1, 2])
def test_a_kill_at_any_step_of_a_write_leaves_a_good_checkpoint(tmp_path, monkeypatch, before):
    """Every call that changes the disk is, in turn, the last one."""
    steps = 0
    while True:
        folder = tmp_path / str(steps)
        folder.mkdir()
        for number in range(before):
            checkpoint.save(folder, state(number))
        left = iter(range(steps))

        def counted(call, left=left):
            def counting(*arguments, **options):
                if next(left, None) is None:
                    raise Killed
                return call(*arguments, **options)

            return counting

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", counted(os.fsync))
            patch.setattr(Path, "replace", counted(Path.replace))
            patch.setattr(Path, "unlink", lambda *_, **__: None)  # a killed process tidies up nothing
            try:
                checkpoint.save(folder, state(before))
                break
            except Killed:
                pass
        assert load(folder)["number"] in (before - 1, before)
        checkpoint.save(folder, state(9))
        assert load(folder)["number"] == 9
        steps += 1
    assert steps == 4  # a sync, three renames


def test_a_resumed_run_tells_where_else_it_ran(tmp_path, monkeypatch):
    fit_small(tmp_path / "run")
    facts = records.read(tmp_path / "run").facts
    assert "resumed" not in facts
    (tmp_path / "run" / checkpoint.PREVIOUS).replace(tmp_path / "run" / records.CHECKPOINT)
    monkeypatch.setattr(records, "_device_name", lambda _: "another CPU")
    fit_small(tmp_path / "run", resume=True)
    resumed = records.read(tmp_path / "run").facts
    stretch = {"epoch": 3, "device": "another CPU", "started": facts["started"]}
    assert resumed == facts | {"resumed": [stretch]}
    fit_small(tmp_path / "run", resume=True)
    assert records.read(tmp_path / "run").facts == resumed
