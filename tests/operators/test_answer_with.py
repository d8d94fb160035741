"""``answer_with``: answers that come, come late, twice, never, after a cancel; and who is asked first."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import reactivex as rx
from reactivex import operators as rxops
from reactivex.subject import Subject

from rxflow import operators as ops
from rxflow.flow import Flow, listen, start
from rxflow.testing import MarbleError, Marbles, ScriptedLLM
from rxflow.types.answers import RunPaused
from rxflow.types.events import FlowFinished, FlowPaused, InputReceived, InputRequested
from tests.gate import poll
from tests.operators.endings import stubborn
from tests.signals import outcome
from tests.team import solo


class Asking(Flow):
    """Asks, waiting ``patience`` seconds at most, and says what it was answered."""

    patience: float | None = None

    @start()
    async def first(self) -> Any:
        answer = await self.ask_async("Go on?", timeout=self.patience)
        return rx.of("none" if answer is None else answer)


class AskingTwice(Asking):
    @listen("first")
    async def second(self) -> Any:
        return rx.of(await self.ask_async("And now?"))


class AskingInAThread(Flow):
    @start()
    def first(self) -> str | None:
        return self.ask("Go on?")


def patient(seconds: float) -> Asking:
    flow = Asking()
    flow.patience = seconds
    return flow


def shown(flow: Flow[Any], who: Any) -> rx.Observable[str]:
    return flow.observe().pipe(ops.answer_with(who), rxops.map(str))


class TestInVirtualTime:
    def test_an_answer_that_comes(self, marbles: Marbles) -> None:
        marbles.expect(shown(Asking(), marbles.answers("--yes|"))).to_be("--(y|)", {"y": "yes"})

    def test_each_question_gets_its_own(self, marbles: Marbles) -> None:
        answers = marbles.answers("--a|", "---b|")
        marbles.expect(shown(AskingTwice(), answers)).to_be("--a--(b|)", {"a": "a", "b": "b"})

    def test_one_that_comes_late_is_none(self, marbles: Marbles) -> None:
        source = marbles.cold("-----a|")
        marbles.expect(shown(patient(0.003), source)).to_be("---(n|)", {"n": "none"})
        marbles.expect_subscriptions(source).to_be("^--!")

    def test_one_that_comes_twice_counts_once(self, marbles: Marbles) -> None:
        source = marbles.cold("--a-b|")
        marbles.expect(shown(Asking(), source)).to_be("--(a|)")
        marbles.expect_subscriptions(source).to_be("^-!")

    def test_one_that_never_comes_pauses_the_run(self, marbles: Marbles) -> None:
        marbles.expect(shown(Asking(), marbles.cold("---|"))).to_be("---|")

    def test_one_that_stays_open_is_waited_for(self, marbles: Marbles) -> None:
        source = marbles.cold("-")
        marbles.expect(shown(Asking(), source), "^------!").to_be("-------")
        marbles.expect_subscriptions(source).to_be("^------!")

    def test_one_after_a_cancel_is_not_heard(self, marbles: Marbles) -> None:
        source = marbles.cold("------a|")
        marbles.expect(shown(Asking(), source), "^---!").to_be("----")
        marbles.expect_subscriptions(source).to_be("^---!")

    def test_one_that_fails_fails_the_run(self, marbles: Marbles) -> None:
        error = ConnectionError("gone")
        marbles.expect(shown(Asking(), marbles.cold("--#", error=error))).to_be("--#", error=error)

    def test_a_model_goes_on_while_a_person_thinks(self, marbles: Marbles) -> None:
        class Both(Asking):
            @start()
            def beside(self) -> Any:
                return solo(ScriptedLLM("a--b--c|")).observe()

        said = shown(Both(), marbles.answers("----yes|"))
        marbles.expect(said).to_be("a--by-c|", {"y": "yes"})


class TestWhoAnswers:
    def test_an_answer_counts_even_if_its_source_raises_when_it_is_disposed(self) -> None:
        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, report: reported.append(report["exception"]))
            assert await shown(Asking(), stubborn(rx.concat(rx.of("yes"), rx.never()))) == "yes"

        reported: list[BaseException] = []
        asyncio.run(main())
        assert list(map(type, reported)) == [ZeroDivisionError]

    @pytest.mark.parametrize("flow", [Asking, AskingInAThread])
    def test_a_function_in_a_thread(self, flow: type[Flow[Any]]) -> None:
        threads: list[str] = []

        def answer(request: InputRequested) -> str:
            threads.append(threading.current_thread().name)
            return request.message.upper()

        seen = outcome(flow().events().pipe(ops.answer_with(answer)))
        assert seen.one(InputReceived).value == "GO ON?"
        assert threads == ["rxflow answer"]

    def test_an_async_function(self) -> None:
        async def answer(request: InputRequested) -> str:
            await asyncio.sleep(0)
            return "yes"

        assert outcome(Asking().events().pipe(ops.answer_with(answer))).one(InputReceived).value == "yes"

    def test_a_function_that_returns_an_observable(self) -> None:
        seen = outcome(Asking().events().pipe(ops.answer_with(lambda _: rx.of("yes", "no"))))
        assert seen.one(InputReceived).value == "yes"

    def test_a_subject_of_another_thread(self) -> None:
        answers: Subject[str] = Subject()

        def subscribe(observer: Any, scheduler: Any = None) -> Any:
            subscription = answers.subscribe(observer)
            threading.Thread(target=answers.on_next, args=["yes"]).start()
            return subscription

        source: rx.Observable[str] = rx.create(subscribe)
        assert outcome(Asking().events().pipe(ops.answer_with(source))).one(InputReceived).value == "yes"

    def test_a_provider_as_crewai_has_them(self) -> None:
        class Provider:
            def request_input(self, message: str, flow: object, metadata: object = None) -> str:
                return f"{message} {metadata}"

        class Labelled(Flow):
            @start()
            def first(self) -> str | None:
                return self.ask("Who?", metadata={"channel": "#a"})

        assert outcome(Labelled().events().pipe(ops.answer_with(Provider()))).one(InputReceived).value == (
            "Who? {'channel': '#a'}"
        )

    def test_the_nearest_is_asked_first_and_none_leaves_it_to_the_next(self) -> None:
        asked: list[str] = []

        def of(name: str, answer: str | None) -> Callable[[InputRequested], str | None]:
            def respond(request: InputRequested) -> str | None:
                asked.append(name)
                return answer

            return respond

        events = Asking().events()
        seen = outcome(
            events.pipe(
                ops.answer_with(of("near", None)), ops.answer_with(of("far", "yes")), ops.answer_with(of("last", "no"))
            )
        )
        assert asked == ["near", "far"]
        assert seen.one(InputReceived).value == "yes"

    def test_an_inner_one_hears_only_its_own_part(self) -> None:
        class Outer(Flow):
            @start()
            def inner(self) -> Any:
                return Asking().events().pipe(ops.answer_with(lambda _: "inner"))

            @listen(inner)
            async def outer(self) -> str | None:
                return await self.ask_async("Really?")

        seen = outcome(Outer().events().pipe(ops.answer_with(lambda _: "outer")))
        assert [event.value for event in seen.of(InputReceived)] == ["inner", "outer"]

    def test_it_works_around_a_selection_and_below_operators(self) -> None:
        output = Asking().observe().pipe(ops.answer_with(lambda _: "yes"), ops.text(), ops.to_output())
        assert [str(chunk) for chunk in output] == ["yes"]

    @pytest.mark.parametrize("who", [42, "yes", None])
    def test_what_cannot_answer_is_refused(self, who: Any) -> None:
        with pytest.raises(TypeError, match="answer_with needs a function"):
            ops.answer_with(who)

    def test_a_function_that_does_not_take_the_request_is_refused_at_the_call(self) -> None:
        def needs_more(request: InputRequested, more: str) -> str:
            return more

        refused: list[tuple[Any, str]] = [(lambda: "Ada", r"<lambda>\(\)"), (needs_more, r"needs_more\(.*\)")]
        for who, shown in refused:
            with pytest.raises(
                TypeError, match=rf"an answerer gets one argument, the request .*; {shown}.* cannot be called so"
            ):
                ops.answer_with(who)

    def test_a_function_that_may_take_the_request_is_accepted(self) -> None:
        def takes_all(*given: Any, more: str = "Ada") -> str:
            return more

        for who in (str, input, takes_all):
            ops.answer_with(who)

    def test_what_is_not_a_run_is_refused(self) -> None:
        with pytest.raises(TypeError, match="and before operators of RxPY"):
            Asking().observe().pipe(rxops.map(str), ops.answer_with(lambda _: "yes"))

    @pytest.mark.parametrize("answer", [42, ["yes"], object()])
    def test_an_answer_of_another_type_is_an_error(self, answer: Any) -> None:
        seen = outcome(Asking().events().pipe(ops.answer_with(lambda _: answer)))
        assert isinstance(seen.error, ValueError)
        assert "the answer to 'Go on?' does not fit" in str(seen.error)

    def test_a_function_that_raises_fails_the_run_with_its_error(self) -> None:
        def answer(request: InputRequested) -> str:
            raise KeyError(request.message)

        assert isinstance(outcome(Asking().events().pipe(ops.answer_with(answer))).error, KeyError)

    def test_an_observable_that_fails_with_stop_iteration_fails_the_run(self) -> None:
        answers = iter(())
        source = rx.of(1).pipe(rxops.map(lambda _: next(answers)))
        error = outcome(Asking().events().pipe(ops.answer_with(source))).error
        assert isinstance(error, RuntimeError)
        assert str(error) == "an Observable of an answer raised StopIteration"


class TestInbox:
    def test_it_holds_a_question_until_it_is_answered(self) -> None:
        inbox = ops.Inbox()

        def answer_first() -> None:
            (request,) = poll(lambda: inbox.pending, bool, "nothing is asked")
            inbox.answer(request.request_id, "yes")

        def answer(event: object) -> None:
            if isinstance(event, InputRequested):
                threading.Thread(target=answer_first).start()

        seen = outcome(Asking().events().pipe(ops.answer_with(inbox)), answer)
        assert seen.one(FlowFinished).result == "yes"
        assert inbox.pending == ()
        with pytest.raises(LookupError, match="no question"):
            inbox.answer(seen.one(InputRequested).request_id, "again")

    def test_what_is_answered_is_no_longer_pending_although_the_run_does_not_know_yet(self) -> None:
        inbox = ops.Inbox()

        async def main() -> None:
            output = Asking().events().pipe(ops.answer_with(inbox), ops.to_output())
            results: list[Any] = []
            async for event in output:
                if isinstance(event, FlowFinished):
                    results.append(event.result)
                if isinstance(event, InputRequested):
                    await asyncio.sleep(0)
                    inbox.answer(event.request_id, "yes")
                    assert inbox.pending == ()
                    with pytest.raises(LookupError, match="no question"):
                        inbox.answer(event.request_id, "no")
            assert results == ["yes"]

        asyncio.run(main())

    def test_a_declined_question_pauses_the_run(self) -> None:
        inbox = ops.Inbox()

        def decline_first() -> None:
            (request,) = poll(lambda: inbox.pending, bool, "nothing is asked")
            inbox.decline(request.request_id)

        def decline(event: object) -> None:
            if isinstance(event, InputRequested):
                threading.Thread(target=decline_first).start()

        seen = outcome(Asking().events().pipe(ops.answer_with(inbox)), decline)
        assert [each.message for each in seen.one(FlowPaused).pending] == ["Go on?"]

    def test_closing_the_run_empties_it_at_once(self) -> None:
        inbox = ops.Inbox()

        async def main() -> None:
            output = Asking().events().pipe(ops.answer_with(inbox), ops.to_output())
            async for event in output:
                if isinstance(event, InputRequested):
                    break
            await asyncio.sleep(0)
            assert [each.message for each in inbox.pending] == ["Go on?"]
            await output.aclose()
            assert output.is_cancelled

        asyncio.run(main())
        assert inbox.pending == ()


class TestPause:
    def test_siblings_finish_and_all_that_wait_are_pending(self) -> None:
        class Several(Flow):
            @start()
            def one(self) -> str | None:
                return self.ask("One?")

            @start()
            async def two(self) -> str | None:
                return await self.ask_async("Two?")

            @start()
            async def works(self) -> str:
                await asyncio.sleep(0)
                return "done"

            @listen(works)
            def after(self) -> str:
                return "after"

            @listen(one)
            def never(self) -> str:
                raise AssertionError("what nobody has answered goes on")

        output = Several().stream_chunks()
        assert list(output) == []
        assert output.is_paused
        assert output.is_completed
        assert not output.is_cancelled
        assert repr(output) == "<FlowStreamingOutput paused, 0 chunks>"
        with pytest.raises(RunPaused) as paused:
            _ = output.result
        assert sorted(each.message for each in paused.value.pending) == ["One?", "Two?"]
        seen = outcome(Several().events())
        assert isinstance(seen.items[-1], FlowPaused)
        assert seen.error is None

    def test_a_result_of_a_flow_inside_it_is_not_that_of_a_paused_run(self) -> None:
        class Inner(Flow):
            @start()
            def say(self) -> str:
                return "inner"

        class Outer(Flow):
            @start()
            def nest(self) -> Any:
                return Inner().kickoff()

            @listen(nest)
            def question(self) -> str | None:
                return self.ask("Go on?")

        with pytest.raises(RunPaused, match=r"Go on\?"):
            Outer().kickoff()
        output = Outer().stream_chunks()
        assert list(output) == []
        assert output.is_paused
        with pytest.raises(RunPaused):
            _ = output.result

    def test_a_run_goes_on_while_a_flow_inside_it_is_paused(self) -> None:
        async def main() -> None:
            paused, seen = asyncio.Event(), asyncio.Event()

            class Outer(Flow):
                @start()
                async def nest(self) -> Any:
                    try:
                        return await Asking().kickoff_async()
                    finally:
                        paused.set()

                @start()
                async def speak(self) -> AsyncIterator[str]:
                    await paused.wait()
                    yield "a"
                    await seen.wait()

            output = Outer().stream_chunks()
            async for chunk in output:
                assert (chunk.content, output.is_paused) == ("a", False)
                seen.set()
            assert output.is_paused

        asyncio.run(main())

    @pytest.mark.parametrize("end", ["fails", "is closed"])
    def test_a_run_that_ends_otherwise_is_not_paused(self, end: str) -> None:
        class Outer(Flow):
            @start()
            def nest(self) -> Any:
                return Asking().kickoff()

            @start()
            def speak(self) -> Any:
                return ScriptedLLM("----a---#").observe("Hi")

        output = Outer().stream_chunks()
        chunks = iter(output)
        assert next(chunks).content == "a"
        if end == "fails":
            with pytest.raises(MarbleError):
                next(chunks)
        else:
            output.close()
        assert not output.is_paused

    def test_kickoff_says_what_is_pending(self) -> None:
        with pytest.raises(RunPaused, match=r"the run is paused until someone answers .*: 'Go on\?'"):
            Asking().kickoff()
        with pytest.raises(RunPaused):
            asyncio.run(Asking().kickoff_async())

    def test_a_flow_in_a_flow_pauses_both(self) -> None:
        class Outer(Flow):
            @start()
            def inner(self) -> Any:
                return AskingInAThread().kickoff()

        seen = outcome(Outer().events())
        assert [event.origin.flow_name for event in seen.of(FlowPaused)] == ["AskingInAThread", "Outer"]
        assert seen.error is None

    def test_code_that_handles_failures_does_not_take_a_pause_for_one(self) -> None:
        class Careful(Flow):
            @start()
            def first(self) -> str | None:
                try:
                    return self.ask("Go on?")
                except Exception:  # noqa: BLE001 - what this is about
                    return "handled"

        assert outcome(Careful().events()).of(FlowPaused)

    def test_a_failing_sibling_fails_the_run(self) -> None:
        class Fails(Asking):
            @start()
            async def fails(self) -> None:
                raise KeyError("topic")

        assert isinstance(outcome(Fails().events()).error, KeyError)
