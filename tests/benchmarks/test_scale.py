"""Length costs no more than length: calls are counted, and stacks measured, since clocks are noisy.

The shapes are the benchmark's own, so this says of each of them that it does what it is measured for.
"""

import sys
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from types import FrameType
from typing import Any

import pytest

from benchmarks import scale

pytestmark = pytest.mark.slow

Kind = Callable[[int], AbstractContextManager[Callable[[], None]]]

KINDS: dict[str, Kind] = {
    "async chain": partial(scale.chains, is_async=True),
    "sync chain": partial(scale.chains, is_async=False),
    "async cycle": partial(scale.cycles, is_async=True),
    "sync cycle": partial(scale.cycles, is_async=False),
}


class Calls:
    """How many Python functions were called, in all threads, and how deep they stood in each other."""

    def __init__(self) -> None:
        self.count = 0
        self.depth = 0

    def note(self, frame: FrameType, event: str, argument: Any) -> None:
        if event != "call":
            return
        self.count += 1
        depth, outer = 0, frame.f_back
        while outer is not None:
            depth, outer = depth + 1, outer.f_back
        self.depth = max(self.depth, depth)


@contextmanager
def counted() -> Generator[Calls]:
    calls = Calls()
    threading.setprofile(calls.note)
    sys.setprofile(calls.note)
    try:
        yield calls
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def calls_of(kind: Kind, length: int) -> Calls:
    with kind(length) as run:
        run()  # what is done once is not to be counted
        with counted() as calls:
            run()
    return calls


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_twice_the_length_takes_twice_the_calls_and_no_deeper_stack(kind: Kind) -> None:
    once, twice = calls_of(kind, 100), calls_of(kind, 200)
    assert once.count > 100
    assert twice.count / once.count < 2.2
    assert twice.depth <= once.depth + 5


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_length_beyond_any_stack_is_no_recursion(kind: Kind) -> None:
    with kind(2 * sys.getrecursionlimit()) as run:
        run()
