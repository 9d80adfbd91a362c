"""How a command ends whose output nobody reads any more, or cannot be written."""

import subprocess
import sys
from pathlib import Path

import pytest

CODE = "import sys; from s9.errors import run_command; run_command(lambda: (sys.stdin.read(), {}))"


@pytest.mark.parametrize("work", ["print('.' * 10**6, file=sys.{})", "print('.', file=sys.{}), sys.exit(2)"])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_command_ends_silently_when_its_output_is_read_no_further(stream, work):
    # -E: without PYTHONUNBUFFERED, which would hide what is written at the end.
    other, pipe = "stderr" if stream == "stdout" else "stdout", subprocess.PIPE
    command = [sys.executable, "-E", "-c", CODE.format(work.format(stream))]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        getattr(process, stream).close()
        process.stdin.close()
        assert getattr(process, other).read() == b""
    assert process.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device that is always full")
@pytest.mark.parametrize("buffered", ["-E", "-uE"])
@pytest.mark.parametrize("work", ["print('.' * 10**6)", "print('.')", "sys.exit(2)"])
def test_output_that_finds_no_space_is_one_line(work, buffered):
    command = [sys.executable, buffered, "-c", CODE.format(work)]
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, encoding="utf-8"
        )
    line = "the output cannot be written (No space left on device): free disk space\n"
    assert (ended.returncode, ended.stderr) == ((2, "") if "exit" in work else (1, line))


def test_a_command_without_an_output_ends_as_ever():
    command = [sys.executable, "-E", "-c", f"import sys; sys.stdout = None; {CODE.format('sys.exit(0)')}"]
    assert subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True).stderr == b""
