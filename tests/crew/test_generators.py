"""A generator that a callback or a guardrail returns is a value like any other, and never awaited."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.scripted import Scripted
from tests.team import played, solo


def return_generator(given: Any) -> Any:
    return (each for each in [given])


@pytest.mark.parametrize("place", ["callback", "step_callback", "task_callback"])
def test_of_a_callback_is_ignored(place: str) -> None:
    options: dict[str, Any] = {"callback": return_generator} if place == "callback" else {}
    crew = {} if place == "callback" else {place: return_generator}
    assert solo(Scripted("Fine"), crew=crew, **options).kickoff().raw == "Fine"


@pytest.mark.parametrize(
    ("place", "wanted"), [("before_kickoff_callbacks", "the inputs"), ("after_kickoff_callbacks", "a CrewOutput")]
)
def test_of_a_callback_whose_result_counts_is_named_in_the_error(place: str, wanted: str) -> None:
    seen = played(solo(Scripted("Fine"), crew={place: [return_generator]}))
    assert isinstance(seen.error, TypeError)
    assert "return_generator" in str(seen.error)
    assert wanted in str(seen.error)


def refuse(output: Any) -> Any:
    yield False, "never"


@pytest.mark.parametrize("guardrail", [return_generator, refuse])
def test_of_a_guardrail_is_not_a_verdict(guardrail: Callable[[Any], Any]) -> None:
    seen = played(solo(Scripted("Fine"), guardrail=guardrail))
    assert isinstance(seen.error, TypeError)
    assert f"the guardrail {guardrail.__name__} must return" in str(seen.error)
