"""How a command ends whose output nobody reads any more."""

import subprocess
import sys

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
