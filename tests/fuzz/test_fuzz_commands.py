"""Random command lines, each wrong in some way: one line, exit code 2, and every file as it was.

Damaged run folders: test_fuzz_runs.py.
"""

from dataclasses import fields

from fuzzing import LONG, WORDS, examples
from hypothesis import given
from hypothesis import strategies as st

import assignment
import train
from model import NETWORKS
from s9.data.sources import DATASETS
from s9.engine.hardware import DEVICES, PRECISIONS
from s9.errors import option
from s9.settings import PRESETS, Settings

TYPED = WORDS.filter(lambda word: word != "--" and not word.startswith(("-h", "--h")))
"""Without what ends the options or asks for help."""

FOLDERS = st.one_of(
    st.sampled_from(
        ["nowhere", "file", "file/below", "empty", "empty/nowhere", LONG, f"empty/{LONG}/run", "~nobody", ""]
    ),
    WORDS.map("nowhere/{}".format),
)
"""None of them holds data, or a run."""
UNWRITABLE = st.sampled_from(["file", "file/below", "file/below/run", LONG, f"{LONG}/run", "run"])
"""Where no new run can be written; "run" holds one."""
UNPRINTABLE = st.sampled_from(["a\nb", "\0", "runs/\x1b[31m", "\udcff", "a\r"])


def numbers_but(kind, low, high):
    """Text that is no number of this kind from low to high."""

    def is_one(text):
        try:
            return low <= kind(text) <= high
        except ValueError:
            return False

    texts = st.one_of(TYPED, st.floats().map(str), st.integers().map(str), st.integers(-3, 8).map(str))
    return texts.filter(lambda text: not is_one(text))


def words_but(names):
    return TYPED.filter(lambda word: word not in names)


TRAIN_GOOD = {
    "--preset": st.sampled_from(sorted(PRESETS)),
    "--model": st.sampled_from(sorted(NETWORKS)),
    "--epochs": st.integers(1, 100_000).map(str),
    "--learning-rate": st.floats(1e-6, 100).map(str),
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
    **{
        option(field.name): numbers_but(type(field.default), field.metadata["low"], field.metadata["high"])
        for field in fields(Settings)
        if field.metadata["low"] is not None
    },
    "--workers": numbers_but(int, 0, 256),
    "--evaluate": FOLDERS,
    "--out": UNWRITABLE,
    "--validation": TYPED.filter(bool),  # It takes no value.
    "--resume": TYPED.filter(bool),
}
TOGETHER = st.one_of(
    st.tuples(st.just("--dataset"), st.just("cifar10"), st.just("--data-dir"), FOLDERS.filter(bool)),
    st.tuples(*map(st.just, ("--out", "run", "--resume", "--seed")), st.sampled_from("12")),
    st.tuples(*map(st.just, ("--model", "dilated", "--first-size", "8"))),
    st.sampled_from([("--device", "cpu", "--precision", "float16")]),
    st.sampled_from([("--out",), ("--epochs",), ("--evaluate",)]),
)
"""Wrong together, or at the end of a line."""


def options(values):
    """An option and its value, as two words or as one with =."""
    pairs = st.one_of([st.tuples(st.just(name), value) for name, value in values.items()])
    return pairs.flatmap(lambda pair: st.sampled_from([pair, ("=".join(pair),)]))


def unknown(names):
    """Words that are no option, nor the beginning of one, nor a value."""
    words = st.one_of(WORDS.map("--{}".format), WORDS.map("-{}".format), WORDS)
    return words.filter(
        lambda word: (
            not any(name.startswith(word.split("=")[0]) for name in [*names, "--help"])
            and not word.startswith("-h")
        )
    ).map(lambda word: (word,))


BAD = st.one_of(
    options(TRAIN_BAD),
    TOGETHER,
    unknown(TRAIN_BAD),
    st.tuples(st.sampled_from(["--model", "--dataset"]), UNPRINTABLE),
)


@examples(200)
@given(st.lists(options(TRAIN_GOOD), max_size=3), BAD)
def test_train_answers_a_bad_line_with_one_line(sandbox, good, bad):
    """What is wrong comes last, so that no good value takes its place."""
    sandbox.refuses(train, ["--dataset", "digits", *sum(good, ()), *bad])


COMMANDS = ("audit", "qna", "handin", "readme", "figures")


@examples(60)
@given(
    st.one_of(
        words_but(COMMANDS).map(lambda word: [word]),
        st.tuples(st.sampled_from(COMMANDS), st.just("--run"), FOLDERS | UNPRINTABLE),
        st.tuples(st.sampled_from(COMMANDS), unknown(["--run", "--check", "--data-dir"])).map(
            lambda line: (line[0], *line[1])
        ),
        st.tuples(st.sampled_from(["audit", "qna", "handin", "figures"]), st.just("--check")),
        st.tuples(st.sampled_from(["qna", "readme"]), st.just("--data-dir"), WORDS),
        st.tuples(st.just("figures"), st.just("--data-dir"), FOLDERS.filter(bool)),
        st.sampled_from([[], ["--run", "run"], ["readme", "--run"], ["readme", "--check=yes"]]),
    ).filter(lambda line: not any(word.startswith("-h") or word == "--" for word in line))
)
def test_assignment_answers_a_bad_line_with_one_line(sandbox, arguments):
    sandbox.refuses(assignment, arguments)
