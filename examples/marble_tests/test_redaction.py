"""A secret is not shown, wherever the provider happens to cut it."""

from rxflow import operators as ops
from rxflow.testing import Marbles, ScriptedLLM

KEY = r"key-\d+"


def test_a_secret_that_is_cut_in_two_is_not_shown(marbles: Marbles) -> None:
    model = ScriptedLLM(
        "a---b---c---d----|",
        values={"a": "It is ", "b": "key-1", "c": "23: ", "d": "keep it."},
    )
    safe = model.observe("What is my key?").pipe(ops.redact(KEY), ops.words())
    marbles.expect(safe).to_be(
        "a-------b---(cd)-(e|)",
        {"a": "It", "b": " is", "c": " [redacted]:", "d": " keep", "e": " it."},
    )
