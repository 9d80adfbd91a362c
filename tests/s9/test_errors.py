"""How a command ends whose output nobody reads any more."""

import subprocess
import sys

import pytest

CODE = "import sys; from s9.errors import run_command; run_command(lambda: print('.' * 10**6, file=sys.{}))"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_command_ends_silently_when_its_output_is_read_no_further(stream):
    other = "stderr" if stream == "stdout" else "stdout"
    command = [sys.executable, "-c", CODE.format(stream)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        getattr(process, stream).read(1)
        getattr(process, stream).close()
        assert getattr(process, other).read() == b""
    assert process.returncode == 141
