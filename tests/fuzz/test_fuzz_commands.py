"""Random command lines, each wrong in some way: one line, exit code 2, and every file as it was.

Damaged run folders: test_fuzz_runs.py.
"""

import pytest
from fuzzing import LONG, WORDS, bad_inputs
from hypothesis import given
from hypothesis import strategies as st

import assignment
import train
from model import NETWORKS
from s9.data.sources import DATASETS
from s9.engine.hardware import DEVICES, PRECISIONS
from s9.settings import PRESETS
from tools import benchmark

TYPED = WORDS.filter(lambda word: word != "--" and not word.startswith(("-h", "--h")))
"""Without what ends the options or asks for help."""

FOLDERS = st.one_of(
    st.sampled_from(
        ["nowhere", "file", "file/below", "empty", "empty/nowhere", LONG, f"empty/{LONG}/run", "~nobody", ""]
    ),
    WORDS.map(lambda word: "nowhere/" + word),
)
"""None of them holds data, or a run."""

UNWRITABLE = st.sampled_from(
    ["file", "file/below", "file/below/run", LONG, f"empty/{LONG}", f"{LONG}/run", "run"]
)
"""Where no new run can be written; in the last there is one."""


def is_number(kind, text, low, high):
    try:
        return low <= kind(text) <= high
    except ValueError:
        return False


def numbers_but(kind, low, high):
    """Text that is no number of this kind from low to high."""
    wholes, floats = st.integers(), st.floats()
    texts = st.one_of(TYPED, floats.map(str), wholes.map(str), st.integers(-3, 8).map(str))
    return texts.filter(lambda text: not is_number(kind, text, low, high))


def words_but(names):
    return TYPED.filter(lambda word: word not in names)


TRAIN_GOOD = {
    "--preset": st.sampled_from(sorted(PRESETS)),
    "--model": st.sampled_from(sorted(NETWORKS)),
    "--epochs": st.integers(1, 100_000).map(str),
    "--batch-size": st.integers(1, 50_000).map(str),
    "--learning-rate": st.floats(1e-6, 100).map(str),
    "--weight-decay": st.floats(0, 1).map(str),
    "--seed": st.integers(0, 2**63 - 1).map(str),
    "--workers": st.just("0"),
    "--device": st.just("cpu"),
    "--precision": st.sampled_from(["auto", "float32"]),
}
TRAIN_BAD = {
    "--preset": words_but(PRESETS),
    "--model": words_but(NETWORKS),
    "--dataset": words_but(DATASETS),
    "--device": words_but(DEVICES),
    "--precision": words_but(["auto", *PRECISIONS]),
    "--epochs": numbers_but(int, 1, 100_000),
    "--batch-size": numbers_but(int, 1, 50_000),
    "--learning-rate": numbers_but(float, 5e-324, 100),
    "--bias-rate": numbers_but(float, 0, 1_000),
    "--weight-decay": numbers_but(float, 0, 1),
    "--label-smoothing": numbers_but(float, 0, 1),
    "--augmentation": numbers_but(float, 0, 1),
    "--shift": numbers_but(float, 0, 1),
    "--first-size": numbers_but(int, 8, 32),
    "--seed": numbers_but(int, 0, 2**63 - 1),
    "--workers": st.integers(257, 10**9).map(str) | numbers_but(int, 0, 256),
    "--evaluate": FOLDERS,
    "--out": UNWRITABLE,
    "--validation": TYPED.filter(bool),  # It takes no value.
    "--resume": TYPED.filter(bool),
}
TOGETHER = st.one_of(
    st.tuples(st.just("--dataset"), st.just("cifar10"), st.just("--data-dir"), FOLDERS.filter(bool)),
    st.tuples(
        st.just("--out"), st.just("run"), st.just("--resume"), st.just("--seed"), st.sampled_from("12")
    ),
    st.tuples(*map(st.just, ("--model", "dilated", "--first-size")), st.integers(8, 16).map(str)),
    st.tuples(*map(st.just, ("--model", "reference", "--first-size")), st.integers(8, 28).map(str)),
    st.tuples(*map(st.just, ("--device", "cpu", "--precision", "float16"))),
    st.sampled_from([("--resume",), ("--out",), ("--epochs",), ("--evaluate",)]),
)
"""Wrong together, or at the end of a line."""


def options(values):
    """An option and its value, as two words or as one with =."""
    pairs = st.one_of([st.tuples(st.just(name), value) for name, value in values.items()])
    return pairs.flatmap(lambda pair: st.sampled_from([pair, ("=".join(pair),)]))


def unknown(parser_options):
    """Words that are no option, nor the beginning of one, nor a value."""
    names = [*parser_options, "--help"]
    return st.one_of(WORDS.map("--{}".format), WORDS.map("-{}".format), WORDS).filter(
        lambda word: (
            not any(name.startswith(word.split("=")[0]) for name in names) and not word.startswith("-h")
        )
    )


def lines(good, bad):
    """Some good options, then what is wrong: it comes last, so no good value takes its place."""
    return st.tuples(st.lists(good, max_size=3), bad).map(lambda line: [*sum(line[0], ()), *line[1]])


UNPRINTABLE = st.sampled_from(["a\nb", "\0", "runs/\x1b[31m", "\udcff", "a\r"])


@bad_inputs(200)
@given(
    lines(
        options(TRAIN_GOOD),
        st.one_of(
            options(TRAIN_BAD),
            options(TRAIN_BAD),
            TOGETHER,
            unknown(TRAIN_BAD).map(lambda word: (word,)),
            st.tuples(st.sampled_from(["--model", "--data-dir"]), UNPRINTABLE),
            # A folder may have a name that is no text.
            st.tuples(st.just("--out"), UNPRINTABLE.filter(lambda name: name != "\udcff")),
        ),
    )
)
def test_train_answers_a_bad_line_with_one_line(sandbox, arguments):
    sandbox.refuses(train, ["--dataset", "digits", *arguments])


BENCH_BAD = {
    "--only": words_but([*benchmark.NAMES]),
    "--seconds": numbers_but(float, 5e-324, 60),
    "--device": words_but(DEVICES),
    "--json": st.sampled_from(["empty", "run", "file/below", "file/a.json", LONG, f"{LONG}/a.json", ".", ""]),
    "--data-dir": FOLDERS.filter(bool),
}
BENCH_GOOD = {
    "--only": st.sampled_from(benchmark.NAMES),
    "--seconds": st.floats(0.001, 60).map(str),
    "--device": st.sampled_from(["auto", "cpu"]),
    "--json": st.sampled_from(["new.json", "empty/new.json", "file"]),
}


@bad_inputs(100)
@given(
    lines(
        options(BENCH_GOOD),
        st.one_of(
            options(BENCH_BAD),
            unknown(BENCH_BAD).map(lambda word: (word,)),
            st.tuples(st.sampled_from(["--only", "--data-dir", "--json"]), UNPRINTABLE),
        ),
    )
)
def test_bench_answers_a_bad_line_with_one_line(sandbox, arguments):
    sandbox.refuses(benchmark, ["--data-dir", "nowhere", *arguments])


COMMANDS = ("audit", "qna", "readme", "figures")


@bad_inputs(100)
@given(
    st.one_of(
        words_but(COMMANDS).map(lambda word: [word]),
        st.tuples(st.sampled_from(COMMANDS), st.just("--run"), FOLDERS),
        st.tuples(st.sampled_from(COMMANDS), FOLDERS.map("--run={}".format)),
        st.tuples(st.sampled_from(COMMANDS), unknown(["--run", "--check", "--data-dir"])),
        st.tuples(st.sampled_from(COMMANDS), st.just("--run"), UNPRINTABLE),
        st.tuples(st.sampled_from(["audit", "qna", "figures"]), st.just("--check")),
        st.tuples(st.sampled_from(["audit", "qna", "readme"]), st.just("--data-dir"), WORDS),
        st.tuples(st.just("figures"), st.just("--data-dir"), FOLDERS.filter(bool)),
        st.sampled_from([[], ["--run", "run"], ["readme", "--run"], ["readme", "--check=yes"]]),
    ).filter(lambda line: not any(word.startswith("-h") or word == "--" for word in line))
)
def test_assignment_answers_a_bad_line_with_one_line(sandbox, arguments):
    sandbox.refuses(assignment, arguments)


@pytest.mark.parametrize("command", [train, benchmark, assignment])
def test_a_good_line_is_not_taken_for_a_bad_one(sandbox, command):
    """Else everything above could pass by refusing all."""
    with pytest.raises(SystemExit) as ended:
        command.main(["--help"])
    assert ended.value.code == 0
