"""``@human_feedback``: what a person says of a method's result, and what follows from it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import pytest
import reactivex

from rxflow import operators as ops
from rxflow.flow import Flow, HumanFeedbackResult, human_feedback, listen, or_, router, start
from rxflow.operators import Inbox
from rxflow.testing import ScriptedLLM
from rxflow.types.answers import HumanFeedbackPending, RunPaused
from rxflow.types.events import FlowFinished, FlowPaused, InputRequested, LLMFinished, MethodFinished
from tests.gate import PATIENCE_S, poll
from tests.signals import Outcome, outcome

bare: Any = human_feedback
"""The decorator as a mistaken program uses it, without parentheses."""


class Review(Flow):
    """A draft that is reviewed, with labels."""

    @start()
    @human_feedback("Good?", emit=["approved", "again"], llm=ScriptedLLM(), default_outcome="again")
    def draft(self) -> str:
        return "draft"

    @listen("approved")
    def publish(self, result: HumanFeedbackResult) -> str:
        return f"published {result.output}: {result.feedback}"

    @listen("again")
    def improve(self, result: HumanFeedbackResult) -> str:
        return f"improved {result.output}: {result.feedback}"


def reviewing(words: Any, flow: type[Flow[Any]] = Review) -> Outcome:
    return outcome(flow().events().pipe(ops.answer_with(lambda _: words)))


def choosing(model: Any, **given: Any) -> type[Flow[Any]]:
    class Choice(Flow):
        @start()
        @human_feedback("Good?", emit=["approved", "again"], llm=model, **given)
        def draft(self) -> str:
            return "draft"

        @listen("approved")
        def publish(self) -> str:
            return "published"

        @listen("again")
        def improve(self) -> str:
            return "improved"

    return Choice


@pytest.mark.parametrize(
    ("words", "result"),
    [
        ("approved", "published draft: approved"),
        (" Approved\n", "published draft: Approved"),
        ("again", "improved draft: again"),
        ("", "improved draft: "),
        ("   ", "improved draft: "),
    ],
)
def test_a_label_chooses_what_follows_and_none_is_the_default(words: str, result: str) -> None:
    assert reviewing(words).one(FlowFinished).result == result


@pytest.mark.parametrize("words", ["", "   ", "\n"])
def test_without_a_default_no_words_are_not_an_answer(words: str) -> None:
    seen = reviewing(words, choosing(ScriptedLLM()))
    assert isinstance(seen.error, ValueError)
    assert str(seen.error) == (
        "the answer to 'Good?' does not fit: it is empty; answer with one of approved, again, or in other words, or "
        "give @human_feedback a default_outcome"
    )
    assert [each.origin.flow_method for each in seen.of(MethodFinished)] == []


def test_an_inbox_keeps_the_question_open_when_the_answer_is_empty() -> None:
    inbox = Inbox()
    output = choosing("none")().observe().pipe(ops.answer_with(inbox), ops.to_output())
    with output, ThreadPoolExecutor() as threads:
        reading = threads.submit(list, output)
        (request,) = poll(lambda: inbox.pending, bool, "no question")
        for empty in ("", "   "):
            with pytest.raises(ValueError, match="it is empty; answer with one of approved, again"):
                inbox.answer(request.request_id, empty)
        assert inbox.pending == (request,)
        inbox.answer(request.request_id, "again")
        reading.result(PATIENCE_S)


def test_without_labels_no_words_are_an_answer() -> None:
    class Plain(Flow):
        @start()
        @human_feedback("Good?")
        def draft(self) -> str:
            return "draft"

    assert reviewing("", Plain).one(FlowFinished).result.feedback == ""


@pytest.mark.parametrize("said", ['{"outcome": "again"}', 'Well: ```{"outcome": "again"}```', "I would say: again."])
def test_a_model_says_which_label_other_words_mean(said: str) -> None:
    model = ScriptedLLM([said])
    seen = reviewing("Please shorten it", choosing(model))
    assert seen.one(FlowFinished).result == "improved"
    assert "Please shorten it" in model.prompts[0]
    assert "approved, again" in model.prompts[0]
    assert seen.texts == []
    assert seen.one(FlowFinished).usage == seen.one(LLMFinished).usage


@pytest.mark.parametrize("said", ["no idea", "approved or again"])
def test_words_that_mean_nothing_to_the_model_are_the_default_else_an_error(said: str) -> None:
    assert (
        reviewing("Hm", choosing(ScriptedLLM([said]), default_outcome="again")).one(FlowFinished).result == "improved"
    )
    error = reviewing("Hm", choosing(ScriptedLLM([said]))).error
    assert isinstance(error, ValueError)
    assert "the feedback 'Hm' means none of ['approved', 'again'] to the model" in str(error)


@pytest.mark.parametrize(
    ("said", "result"),
    [
        ("I do not know", "default"),
        ("Yes and no", "default"),
        ("No.", "no"),
        ("not sure", "not sure"),
        ("It is *Not Sure*, or so it seems", "not sure"),
        ("sure", "sure"),
        ("not sure, but sure", "default"),
        ("no-one", "default"),
    ],
)
def test_a_model_names_a_label_by_whole_words_and_the_longest_counts(said: str, result: str) -> None:
    labels = ["yes", "no", "sure", "not sure", "default"]

    class Choice(Flow):
        @start()
        @human_feedback("Good?", emit=labels, llm=ScriptedLLM([said]), default_outcome="default")
        def draft(self) -> str:
            return "draft"

        @listen(or_(*labels))
        def follow(self, reviewed: HumanFeedbackResult) -> str | None:
            return reviewed.outcome

    assert reviewing("Hm", Choice).one(FlowFinished).result == result


def test_a_model_that_fails_fails_the_method() -> None:
    assert isinstance(reviewing("Hm", choosing(ScriptedLLM(TimeoutError("slow")))).error, TimeoutError)


def test_without_labels_the_listeners_get_what_was_said() -> None:
    class Two(Flow):
        @start()
        @human_feedback("First?", metadata={"channel": "#a"})
        def first(self) -> str:
            return "draft"

        @listen(first)
        @human_feedback("Second?")
        async def second(self, before: HumanFeedbackResult) -> str:
            return f"final after {before.feedback}"

    flow = Two()
    flow.input_provider = lambda request: request.message.lower()
    result = flow.kickoff()
    assert isinstance(result, HumanFeedbackResult)
    assert (result.output, result.feedback, result.outcome) == ("final after first?", "second?", None)
    assert [each.method_name for each in flow.human_feedback_history] == ["first", "second"]
    assert flow.human_feedback_history[0].metadata == {"channel": "#a"}
    assert flow.last_human_feedback is flow.human_feedback_history[-1]
    assert flow.method_outputs == flow.human_feedback_history


def test_with_labels_the_result_stays_what_the_method_returned() -> None:
    flow = choosing("none")()
    flow.input_provider = lambda _: "approved"
    assert flow.kickoff() == "published"
    assert flow.method_outputs == ["draft", "published"]
    assert flow.last_human_feedback is not None
    assert flow.last_human_feedback.outcome == "approved"


def test_a_reviewed_listener_is_a_router_that_runs_in_cycles() -> None:
    words = iter(["again", "again", "approved"])

    class Cycle(Flow):
        @start("again")
        def write(self) -> str:
            self.state["drafts"] = self.state.get("drafts", 0) + 1
            return f"draft {self.state['drafts']}"

        @listen(write)
        @human_feedback("Good?", emit=["approved", "again"], llm="none")
        def review(self, draft: str) -> str:
            return draft

        @listen("approved")
        def publish(self, result: HumanFeedbackResult) -> str:
            return f"{result.output} is out"

    flow = Cycle()
    flow.input_provider = lambda _: next(words)
    assert flow.kickoff() == "draft 3 is out"
    assert [each.outcome for each in flow.human_feedback_history] == ["again", "again", "approved"]


def test_the_question_shows_the_output_and_the_labels() -> None:
    request = reviewing("approved").one(InputRequested)
    assert (request.kind, request.message, request.options) == ("feedback", "Good?", ("approved", "again"))
    assert request.arguments == {"output": "draft"}
    assert request.response_schema == {"type": "string"}
    assert reviewing("again", choosing("none")).one(InputRequested).response_schema == {
        "type": "string",
        "pattern": r"\S",
    }


def test_the_method_finishes_when_the_person_has_spoken() -> None:
    seen = reviewing("approved")
    names = [type(event).__name__ for event in seen.events]
    assert names.index("InputRequested") < names.index("InputReceived") < names.index("MethodFinished")
    assert seen.of(MethodFinished)[0].result.outcome == "approved"


def test_a_provider_of_its_own_goes_first_and_knows_the_flow() -> None:
    told: list[Any] = []

    class Provider:
        def request_feedback(self, context: Any, flow: Any) -> str:
            told.append((context.method_name, context.method_output, context.emit, context.flow_id == flow.flow_id))
            return "approved"

    seen = outcome(choosing("none", provider=Provider())().events().pipe(ops.answer_with(lambda _: "again")))
    assert told == [("draft", "draft", ["approved", "again"], True)]
    assert seen.one(FlowFinished).result == "published"


class Later:
    def request_feedback(self, context: Any, flow: Any) -> str:
        raise HumanFeedbackPending(context=context, callback_info={"ticket": 1})


class LaterAsync:
    async def request_feedback(self, context: Any, flow: Any) -> str:
        await asyncio.sleep(0)
        raise HumanFeedbackPending(context=context, callback_info={"ticket": 1})


class LaterObservable:
    def request_feedback(self, context: Any, flow: Any) -> Any:
        return reactivex.throw(HumanFeedbackPending(context=context))


@pytest.mark.parametrize("provider", [Later, LaterAsync, LaterObservable])
def test_a_provider_that_answers_later_pauses_the_run(provider: Callable[[], Any]) -> None:
    seen = outcome(choosing("none", provider=provider())().events().pipe(ops.answer_with(lambda _: "again")))
    assert [each.message for each in seen.one(FlowPaused).pending] == ["Good?"]
    with pytest.raises(RunPaused):
        choosing("none", provider=provider())().kickoff()


def test_async_flows_are_reviewed_too() -> None:
    class Async(Flow):
        @start()
        @human_feedback("Good?")
        async def draft(self) -> str:
            await asyncio.sleep(0)
            return "draft"

    flow = Async()
    flow.input_provider = lambda _: "fine"
    result: Any = asyncio.run(flow.kickoff_async())
    assert result.feedback == "fine"


def nothing(self: Flow) -> None: ...


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValueError, match="llm is required when emit is specified"):
        human_feedback("Good?", emit=["yes"], llm=None)
    with pytest.raises(ValueError, match="default_outcome requires emit"):
        human_feedback("Good?", default_outcome="yes")
    with pytest.raises(ValueError, match=r"default_outcome 'maybe' must be one of the emit options: \['yes', 'no'\]"):
        human_feedback("Good?", emit=["yes", "no"], default_outcome="maybe")
    for wrong in ([1], ["yes", 2], [["yes"]]):
        with pytest.raises(TypeError, match="emit must name labels, which are strings; got"):
            human_feedback("Good?", emit=wrong)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    for empty in ([], "", ["yes", ""]):
        with pytest.raises(ValueError, match="emit must name at least one label, and no empty one; got"):
            human_feedback("Good?", emit=empty)
    with pytest.raises(ValueError, match="metadata cannot have the key 'output', under which the result is shown"):
        human_feedback("Good?", metadata={"output": "other"})
    with pytest.raises(ValueError, match="learn=True is not supported"):
        human_feedback("Good?", learn=True)
    with pytest.raises(ValueError, match="nothing would run it"):
        type("Flawed", (Flow,), {"draft": human_feedback("Good?")(nothing)})


def test_its_labels_are_known_to_the_graph() -> None:
    class Misspelt(Flow):
        @start()
        @human_feedback("Good?", emit=["approved"], llm="none")
        def draft(self) -> str:
            return "draft"

        @listen("aproved")
        def publish(self) -> None: ...

    with pytest.raises(ValueError, match=r"waits for 'aproved', .*did you mean 'approved'"):
        Misspelt()


@pytest.mark.parametrize(
    ("said", "label"),
    [("答案是通过。", "通过"), ("_Approved_", "approved"), ("I do not know", "none"), ("no-go", "none"), ("No!", "no")],
)
def test_a_label_is_a_word_of_its_own_in_every_script(said: str, label: str) -> None:
    labels = ["approved", "no", "通过", "none"]

    class Choice(Flow):
        @start()
        @human_feedback("Good?", emit=labels, llm=ScriptedLLM([said]), default_outcome="none")
        def draft(self) -> str:
            return "draft"

    assert reviewing("so so", Choice).one(MethodFinished).label == label


def test_feedback_on_a_router_without_emit_keeps_the_label_of_the_router() -> None:
    class Trip(Flow):
        @start()
        def plan(self) -> str:
            return "plan"

        @router(plan)
        @human_feedback("Good?")
        def choose(self) -> Literal["sea", "hills"]:
            return "sea"

        @listen("sea")
        def sail(self, result: HumanFeedbackResult) -> str:
            return f"sail: {result.output}, {result.feedback}"

        @listen("hills")
        def walk(self) -> str:
            return "walk"

        @listen(choose)
        def note(self, result: HumanFeedbackResult) -> str:
            return f"noted: {result.feedback}"

    seen = reviewing("windy?", Trip)
    assert [each.label for each in seen.of(MethodFinished) if each.origin.flow_method == "choose"] == ["sea"]
    results = {each.origin.flow_method: each.result for each in seen.of(MethodFinished)}
    assert results["sail"] == "sail: sea, windy?"
    assert results["note"] == "noted: windy?"
    assert "walk" not in results


def test_a_router_of_ones_own_may_follow() -> None:
    class Routed(Flow):
        @start()
        @human_feedback("Good?")
        def draft(self) -> str:
            return "draft"

        @router(draft)
        def choose(self, result: HumanFeedbackResult) -> str:
            return "long" if len(result.feedback) > 3 else "short"

        @listen("long")
        def last(self) -> str:
            return "long feedback"

    assert reviewing("wonderful", Routed).one(FlowFinished).result == "long feedback"


@pytest.mark.parametrize("is_outside", [False, True])
def test_without_parentheses_it_is_refused_where_it_is_written(is_outside: bool) -> None:
    def plan(self: Flow) -> str:
        return "plan"

    with pytest.raises(
        TypeError, match=r"@human_feedback got the method 'plan' as its message; write @human_feedback\("
    ):
        bare(start()(plan) if is_outside else plan)


def test_a_message_that_is_not_a_text_is_refused() -> None:
    with pytest.raises(TypeError, match="@human_feedback: message is not a string: 3"):
        human_feedback(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


UNCLEAR = ["maybe", "not approved", "absolutely not", "no!!", "yes"]


@pytest.mark.parametrize("words", UNCLEAR)
def test_the_demo_model_selects_no_label(words: str) -> None:
    error = reviewing(words, choosing("rxflow/demo")).error
    assert isinstance(error, ValueError)
    assert "means none of ['approved', 'again'] to the model, which answered 'rxflow/demo cannot judge'" in str(error)


@pytest.mark.parametrize("words", UNCLEAR)
def test_with_the_demo_model_unclear_words_select_the_default(words: str) -> None:
    flow = choosing("rxflow/demo", default_outcome="again")
    assert reviewing(words, flow).one(FlowFinished).result == "improved"


def test_with_the_demo_model_a_label_selects_itself() -> None:
    assert reviewing("Approved", choosing("rxflow/demo")).one(FlowFinished).result == "published"


@pytest.mark.parametrize("default", [None, "again"])
def test_without_a_key_the_error_of_the_default_model_names_the_decorators_llm(
    default: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    class Choice(Flow):
        @start()
        @human_feedback("Good?", emit=["approved", "again"], default_outcome=default)
        def draft(self) -> str:
            return "draft"

        @listen(or_("approved", "again"))
        def follow(self) -> None: ...

    error = reviewing("so so", Choice).error
    assert "OPENAI_API_KEY is not set" in str(error)
    assert "@human_feedback asked gpt-5.4-mini which label the answer means" in str(error)
    assert '@human_feedback(…, llm="provider/model")' in str(error)
