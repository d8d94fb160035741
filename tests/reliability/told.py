"""Calls as the tests of faults make them, and what every call must keep to, whatever its provider does."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from rxflow import LLM
from rxflow.testing.leaks import assert_nothing_is_left
from rxflow.types.events import Event, LLMFailed, LLMFinished, LLMStarted
from tests.llm.ways import DIRECT, Way
from tests.signals import Outcome, outcome


@contextmanager
def hasty(url: str, way: Way = DIRECT, **given: Any) -> Generator[LLM]:
    """A model at ``url`` that does not try again, and waits for no byte longer than a test may."""
    settings: dict[str, Any] = {"max_retries": 0, "timeout": 5.0} | given
    with way.model(url, **settings) as llm:
        yield llm


def told(llm: LLM, hear: Callable[[Event], object] = lambda _: None) -> Outcome:
    """What one call tells, once nothing of it goes on."""
    seen = outcome(llm.events("Hi"), hear)
    assert_nothing_is_left()
    assert_well_told(seen)
    return seen


def assert_well_told(seen: Outcome) -> None:
    """One start, one end, one terminal; and a failure keeps the text that was shown."""
    assert seen.terminals == 1, seen.ends
    assert isinstance(seen.events[0], LLMStarted)
    last = seen.events[-1]
    if seen.error is None:
        assert isinstance(last, LLMFinished)
        assert last.text == seen.text
    else:
        assert isinstance(last, LLMFailed)
        assert last.error is seen.error
        assert last.text == seen.text
    assert len(seen.of(LLMFinished)) + len(seen.of(LLMFailed)) == 1
