"""A router asks two models which way to go, takes the first answer, and cancels the loser."""

from reactivex import Observable

from rxflow import LLM, Flow, operators as ops
from rxflow.flow import listen, router, start
from rxflow.testing import Marbles, ScriptedLLM
from rxflow.types.streaming import StreamChunk


class Desk(Flow):
    """What a router says is its label; here the text of whichever model speaks first."""

    here: LLM
    there: LLM
    expert: LLM

    @start()
    def question(self) -> str:
        return "Who won?"

    @router(question, emit=["sport", "weather"])
    def sort(self, question: str) -> Observable[StreamChunk]:
        return self.here.observe(question).pipe(ops.race(self.there.observe(question)))

    @listen("sport")
    def answer(self) -> Observable[StreamChunk]:
        return self.expert.observe("Answer as a sports reporter: Who won?")

    @listen("weather")
    def forecast(self) -> Observable[StreamChunk]:
        return self.expert.observe("Answer as a meteorologist: Who won?")


def desk(here: LLM, there: LLM, expert: LLM) -> Desk:
    flow = Desk()
    flow.here, flow.there, flow.expert = here, there, expert
    return flow


def test_the_first_to_speak_decides_and_the_loser_is_cancelled(marbles: Marbles) -> None:
    here = ScriptedLLM("  ---- wea-ther|")
    there = ScriptedLLM(" -- sp-ort|")
    expert = ScriptedLLM("        we-did|")
    flow = desk(here, there, expert)
    marbles.expect(flow.observe()).to_say("-- sp-ort we-did|")
    assert here.calls[0].cancelled_at == 0.002
    assert expert.prompts == ["Answer as a sports reporter: Who won?"]


def test_a_model_that_fails_before_it_speaks_leaves_the_other_to_decide(marbles: Marbles) -> None:
    here = ScriptedLLM("  ---- weather|")
    there = ScriptedLLM(" -#")
    expert = ScriptedLLM("            rain|")
    marbles.expect(desk(here, there, expert).observe()).to_say("---- weather rain|")
