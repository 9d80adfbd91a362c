"""What the fuzz tests share: how many bad inputs each must see refused, and inputs for several of them.

Every such test promises a number of different bad inputs (`bad_inputs`) and fails below it. The promises are
added up in test_fuzz_count.py, and pytest prints at the end what was seen (conftest.REFUSED).
"""

import functools
import json
import string

import pytest
from conftest import REFUSED, long_tests
from hypothesis import settings
from hypothesis import strategies as st

from s9.errors import UserError

FACTOR = 10 if long_tests() else 1
PROMISED: dict[str, int] = {}
SEEN: set[str] = set()
"""The bad inputs that the test that runs saw refused."""


def examples(number):
    """Hypothesis's settings for so many examples, ten times as many where long tests are asked for."""
    return settings(max_examples=number * FACTOR)


def bad_inputs(number, out_of=None):
    """For a test under @given that calls `was_refused`: fails unless it saw so many different bad inputs.

    It is given a quarter more examples, or `out_of`: some are drawn twice, or turn out to be good.
    """

    def decorate(test):
        PROMISED[test.__name__] = number
        run = examples(out_of or number * 5 // 4)(test)

        @functools.wraps(run)
        def counted(*arguments, **options):
            SEEN.clear()
            run(*arguments, **options)
            REFUSED[test.__name__] = count = len(SEEN)
            assert count >= number * FACTOR

        return counted

    return decorate


def was_refused(bad_input):
    """Counts an input that was answered by the documented error."""
    SEEN.add(repr(bad_input))


def assert_user_error(function, *arguments, **options):
    """Expects the documented error, its message in one line; returns that."""
    with pytest.raises(UserError) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    was_refused((function.__name__, arguments, options))
    return str(caught.value)


WORDS = st.text(string.ascii_letters + string.digits + "äß世 .,:;=+*'\"\\%{}()[]<>|&$#@!?~^`-_/", max_size=12)
"""Anything that one can type, of any length from nothing."""

LONG = "x" * 300
"""No file system takes so long a name."""

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.binary(max_size=4),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(WORDS, st.none(), max_size=1),
    st.tuples(WORDS),
)
"""Anything but text."""


def other_than(names):
    """Words and other things, but none of these names."""
    capitals = st.sampled_from(sorted(names)).map(str.upper)
    return st.one_of(WORDS, capitals, ODD).filter(lambda value: value not in tuple(names))


def json_values(keys=WORDS):
    """Anything that JSON can say, with NaN and the infinities, which Python reads too."""
    leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS)
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4)
    )


def damaged_json(keys=WORDS):
    """Bytes that are no JSON, JSON of the wrong kind, and JSON too deep to read."""
    return st.one_of(
        st.binary(max_size=20),
        WORDS.map(str.encode),
        json_values(keys).map(lambda value: json.dumps(value).encode()),
        st.integers(5_000, 20_000).map(lambda depth: b"[" * depth),
        st.integers(5_000, 20_000).map(lambda depth: b'{"settings":' * depth),
    )
