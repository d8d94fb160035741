"""A model that is slow to speak is left for another: within two seconds, and its connection closes."""

from reactivex import Observable

from rxflow import LLM, operators as ops
from rxflow.testing import Marbles, ScriptedLLM
from rxflow.types.events import Retracted
from rxflow.types.streaming import StreamChunk


def asked(fast: LLM, steady: LLM, question: str) -> Observable[StreamChunk | Retracted]:
    """What the program does: two seconds for the first word, then somebody else."""
    return fast.observe(question).pipe(
        ops.first_chunk_timeout(2),
        ops.fallback_to(steady.observe(question), fallback_on=ops.FirstChunkTimeout),
    )


def test_a_model_that_speaks_in_time_is_heard_to_its_end(marbles: Marbles) -> None:
    fast = ScriptedLLM("      1s a 5s b|")
    answer = asked(fast, ScriptedLLM(), "Why?")
    marbles.expect(answer).to_say("1s a 5s b|")


def test_one_that_does_not_is_left_for_the_other(marbles: Marbles) -> None:
    fast = ScriptedLLM("      3s too-late|")
    steady = ScriptedLLM("       -so-be-it|")
    answer = asked(fast, steady, "Why?")
    marbles.expect(answer).to_say("2s -so-be-it|")
    assert fast.calls[0].cancelled_at == 2.0
    assert steady.prompts == ["Why?"]


def test_other_errors_are_none_of_its_business(marbles: Marbles) -> None:
    fast = ScriptedLLM("      -#", error=PermissionError("not with this key"))
    answer = asked(fast, ScriptedLLM(), "Why?")
    marbles.expect(answer).to_say("-#", error=PermissionError("not with this key"))
