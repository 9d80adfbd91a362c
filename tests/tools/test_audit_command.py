"""`python assignment.py audit`."""

import pytest
from made_runs import ACCURACY, make_run

import assignment
from model import S9Net
from s9 import records
from tools import audit


@pytest.fixture
def command(monkeypatch, notebook):
    """`python assignment.py audit --run FOLDER`, but for the notebook."""
    with_notebook = audit.audit
    monkeypatch.setattr(audit, "audit", lambda *given: with_notebook(*given, notebook))

    def run(folder):
        try:
            return assignment.main(["audit", "--run", str(folder)])
        except SystemExit as end:
            return end.code

    return run


def test_the_command_on_a_good_run(tmp_path, command, capsys):
    make_run(tmp_path)
    assert command(tmp_path) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert [line[:4] for line in lines[:-1]] == ["ok  "] * 15
    assert lines[-1] == "15 of 15 requirements met"


def test_the_command_on_a_run_that_breaks_a_rule(tmp_path, command, capsys):
    make_run(tmp_path, accuracies=(84.0,))
    assert command(tmp_path) == 1
    out, err = capsys.readouterr()
    assert err == ""
    failed = [line for line in out.splitlines() if line.startswith("FAIL")]
    assert len(failed) == 1
    assert ACCURACY in failed[0]
    assert "84.00%" in failed[0]
    assert out.splitlines()[-1] == "14 of 15 requirements met"


def test_print_audit(tmp_path, command, capsys):
    assert audit.print_audit(make_run(tmp_path)) == 0
    assert audit.print_audit(make_run(tmp_path, validation=True)) == 1


def without(name):
    return lambda folder: (folder / name).unlink()


def with_text(name, text):
    return lambda folder: (folder / name).write_text(text, encoding="utf-8")


DAMAGES = {
    "no settings": without(records.SETTINGS),
    "no history": without(records.HISTORY),
    "no log": without(records.LOG),
    "empty settings": with_text(records.SETTINGS, ""),
    "settings of something else": with_text(records.SETTINGS, '{"settings": {"model": "reference"}}'),
    "a list of settings": with_text(records.SETTINGS, "[]"),
    "an empty history": with_text(records.HISTORY, ""),
    "another table": with_text(records.HISTORY, "a,b\n1,2\n"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_the_command_on_a_folder_that_is_no_run(name, tmp_path, command, capsys):
    make_run(tmp_path)
    DAMAGES[name](tmp_path)
    assert command(tmp_path) == 2
    assert_one_line(capsys)


def test_the_command_on_other_folders(tmp_path, command, capsys):
    file = tmp_path / "file"
    file.touch()
    for folder in (tmp_path / "nowhere", tmp_path, file):
        assert command(folder) == 2
        assert_one_line(capsys)


def test_the_command_on_a_run_of_an_unknown_network(tmp_path, command, capsys):
    make_run(tmp_path, S9Net(), model="resnet")
    assert command(tmp_path) == 2
    assert "unknown model 'resnet'" in assert_one_line(capsys)


def assert_one_line(capsys):
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("assignment.py: error: ")
    assert err.count("\n") == 1
    return err
