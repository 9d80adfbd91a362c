"""How many bad inputs the fuzz tests see refused, all together: each test answers for its own share."""

import test_fuzz_commands
import test_fuzz_files
import test_fuzz_functions
import test_fuzz_runs
from fuzzing import PROMISED

FILES = (test_fuzz_commands, test_fuzz_files, test_fuzz_functions, test_fuzz_runs)


def test_a_thousand_bad_inputs_are_promised():
    assert {name for file in FILES for name in vars(file)} >= PROMISED.keys()
    assert sum(PROMISED.values()) >= 1_000
