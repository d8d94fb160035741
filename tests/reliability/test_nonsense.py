"""Providers that send nonsense: one terminal, of the right class, with what had arrived, in bounded time and memory."""

import asyncio
import json
import tracemalloc
from typing import Any

import pytest

from rxflow.llm._io import Deliver, from_io
from rxflow.llm.source import Delta, ToolCallDelta
from rxflow.tools import tool
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import LLMFailed, LLMFinished, LLMRetrying, ToolFailed, ToolFinished
from tests.gate import PATIENCE_S, Gate
from tests.llm.ways import Way
from tests.llm.wire import delta, event
from tests.loopback import Loopback, Reply, ToolCall
from tests.loopback.encode import DONE
from tests.reliability.told import hasty, told
from tests.reliability.wire import HEAD, Wire, endless
from tests.scripted import Scripted
from tests.signals import Outcome, outcome
from tests.team import played, solo

MIB = 1 << 20
SAID, STOP = delta(content="a"), delta(finish="stop")
END = STOP + DONE


@tool
def look(at: str) -> str:
    """Look at something."""
    return f"seen {at}"


def call(**fields: Any) -> bytes:
    """An event with one delta of a tool call."""
    return delta(tool_calls=[fields])


class TestSizes:
    def test_an_event_of_ten_megabytes_is_refused(self, provider: Loopback, litellm: Any, way: Way) -> None:
        provider.script(Reply(raw=[SAID, delta(content="x" * 10 * MIB) + END]))
        with hasty(provider.url, way) as llm:
            seen = told(llm)
        assert seen.text == "a"
        assert type(seen.error) is litellm.APIResponseValidationError
        assert "an event of the stream has more than 4,194,304 bytes" in str(seen.error)

    @pytest.mark.parametrize("again", [b"x" * 65536, b"data: " + b"x" * 65529 + b"\n"], ids=["line", "event"])
    def test_an_event_without_end_is_refused_before_it_fills_the_memory(
        self, litellm: Any, way: Way, again: bytes
    ) -> None:
        with Wire(endless(HEAD + SAID, again)) as wire, hasty(wire.url, way, timeout=60) as llm:
            tracemalloc.start()
            try:
                seen = told(llm)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            wire.wait_until_gone()
        assert seen.text == "a"
        assert type(seen.error) is litellm.APIResponseValidationError
        assert "more than 4,194,304 bytes" in str(seen.error)
        assert peak < 40 * MIB  # a copy or two of the longest event, in both ends of the connection

    def test_an_error_page_of_any_size_is_told_in_short(self, provider: Loopback, litellm: Any) -> None:
        page = b"<html>" + b"x" * 100_000
        provider.script(Reply(status=500, raw=[page], content_type="text/html"))
        with hasty(provider.url) as llm:
            seen = told(llm)
        assert type(seen.error) is litellm.InternalServerError
        assert len(str(seen.error)) < 5000
        assert "more characters)" in str(seen.error)


class TestWhatIsNoStream:
    @pytest.mark.parametrize(
        ("body", "content_type"),
        [
            (b"<html><title>Sign in</title></html>", "text/html; charset=utf-8"),
            (json.dumps({"choices": [{"message": {"content": "Hello"}}]}).encode(), "application/json"),
            (b"plain words", "text/plain"),
        ],
        ids=["a web page", "a whole answer", "plain words"],
    )
    def test_another_content_type_without_any_event_is_named(
        self, provider: Loopback, litellm: Any, way: Way, body: bytes, content_type: str
    ) -> None:
        provider.script(Reply(raw=[body], content_type=content_type))
        with hasty(provider.url, way) as llm:
            seen = told(llm)
        assert type(seen.error) is litellm.APIResponseValidationError
        assert f"its content type is {content_type!r}" in str(seen.error)
        assert "check base_url" in str(seen.error)

    @pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream"])
    def test_events_are_read_whatever_they_are_called(self, provider: Loopback, way: Way, content_type: str) -> None:
        provider.script(Reply(raw=[SAID + END], content_type=content_type))
        with hasty(provider.url, way) as llm:
            assert told(llm).text == "a"

    @pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
    def test_lines_may_end_in_each_of_the_three_ways(self, provider: Loopback, way: Way, line_end: bytes) -> None:
        provider.script(Reply(raw=[(SAID + SAID + END).replace(b"\n", line_end)]))
        with hasty(provider.url, way) as llm:
            seen = told(llm)
        assert (seen.text, seen.error) == ("aa", None)

    def test_a_byte_order_mark_costs_no_event(self, provider: Loopback) -> None:
        # Read by us: OpenAI's decoder loses the first event.
        provider.script(Reply(raw=[b"\xef\xbb\xbf" + SAID, SAID, END]))
        with hasty(provider.url) as llm:
            assert told(llm).text == "aa"

    def test_an_empty_body_is_an_answer_cut_short(self, provider: Loopback, litellm: Any, way: Way) -> None:
        provider.script(Reply(raw=[]))
        with hasty(provider.url, way) as llm:
            seen = told(llm)
        assert type(seen.error) is litellm.APIConnectionError
        assert "before the answer was complete" in str(seen.error)


class TestOddEvents:
    @pytest.mark.parametrize(
        ("odd", "named"),
        [
            (call(index="a", id="x", function={"name": "f"}), "the index of a tool call is not an integer: 'a'"),
            (call(index=0, id=5, function={"name": "f"}), "the id of a tool call is not a string: 5"),
            (call(index=0, id="x", function={"name": ["f"]}), "the name of a tool call is not a string: ['f']"),
            (
                call(index=0, id="x", function={"name": "f", "arguments": 7}),
                "the arguments of a tool call is not a string: 7",
            ),
            (call(index=0, id="x", function="f"), "has no attribute 'get'"),
            (delta(finish={"odd": 1}), "finish_reason is not a string: {'odd': 1}"),  # type: ignore[arg-type]
            (event({"choices": {"0": SAID.decode()}}), "has no attribute 'get'"),
        ],
    )
    def test_a_value_of_another_type_is_named_and_the_text_kept(
        self, provider: Loopback, litellm: Any, odd: bytes, named: str
    ) -> None:
        # Read by us: litellm's wrapper reports these, or leaves them out.
        provider.script(Reply(raw=[SAID, odd, END]))
        with hasty(provider.url) as llm:
            seen = told(llm)
        assert seen.text == "a"
        assert type(seen.error) is litellm.APIResponseValidationError
        assert named in str(seen.error)

    def test_a_source_of_ones_own_that_emits_nonsense_fails_its_call(self) -> None:
        nonsense: Any = {"content": "b"}
        seen = outcome(Scripted(["a", nonsense, "b"]).llm.events("Hi"))
        assert seen.texts == ["a"]
        assert "is not a delta" in str(seen.error)
        assert seen.one(LLMFailed).text == "a"

    def test_a_delta_that_cannot_be_taken_ends_the_call_and_not_only_itself(self) -> None:
        left = Gate()

        async def read(deliver: Deliver) -> None:
            try:
                deliver(["a", "b"])
                await asyncio.get_running_loop().create_future()
            finally:
                left.open()

        def take(delta: Delta) -> None:
            raise ValueError(f"{delta} is not taken")

        async def main() -> list[str]:
            ended: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
            from_io(read).subscribe(take, lambda error: ended.set_result([repr(error)]))
            return await asyncio.wait_for(ended, PATIENCE_S)

        assert asyncio.run(main()) == ["ValueError('a is not taken')"]
        left.wait()

    @pytest.mark.parametrize("odd", [b'"' + b"[" * 100_000, b"[" * 100_000, b'{"choices":' + b"[" * 100_000])
    def test_json_of_any_depth_is_a_malformed_event(
        self, provider: Loopback, litellm: Any, way: Way, odd: bytes
    ) -> None:
        provider.script(Reply(raw=[SAID, b"data: " + odd + b"\n\n", END]))
        with hasty(provider.url, way) as llm:
            seen = told(llm)
        assert seen.text == "a"
        assert type(seen.error) is litellm.APIResponseValidationError
        assert "not JSON" in str(seen.error)

    @pytest.mark.parametrize("reported", [[1], "many", {"prompt_tokens": "many", "completion_tokens": -1}])
    def test_an_odd_usage_report_costs_only_itself(self, provider: Loopback, reported: Any) -> None:
        provider.script(Reply(raw=[SAID, STOP, event({"choices": [], "usage": reported}), DONE]))
        with hasty(provider.url) as llm:
            seen = told(llm)
        assert (seen.text, seen.error) == ("a", None)
        assert seen.one(LLMFinished).usage.total_tokens is None

    @pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # litellm's own, in litellm's wrapper
    def test_arguments_that_come_as_an_object_are_read(self, provider: Loopback, way: Way) -> None:
        provider.script(Reply(raw=[call(index=0, id="x", function={"name": "look", "arguments": {"at": "é"}}), END]))
        with hasty(provider.url, way) as llm:
            (asked,) = told(llm).one(LLMFinished).tool_calls
        assert json.loads(asked.arguments) == {"at": "é"}

    @pytest.mark.parametrize("words", ["the machine is on fire", {"message": "the machine is on fire"}])
    def test_an_error_event_is_told_in_its_own_words(
        self, provider: Loopback, litellm: Any, way: Way, words: Any
    ) -> None:
        provider.script(Reply(raw=[SAID, event({"error": words})]))
        with hasty(provider.url, way) as llm:
            seen = told(llm)
        assert seen.text == "a"
        assert type(seen.error) is litellm.APIError
        assert "the machine is on fire" in str(seen.error)

    def test_nothing_is_read_after_done(self, provider: Loopback, way: Way) -> None:
        provider.script(Reply(raw=[SAID, END, delta(content="b"), b"data: {nope\n\n", event({"error": "late"})]))
        with hasty(provider.url, way) as llm:
            seen = told(llm)
        assert (seen.text, seen.error) == ("a", None)


class TestHalfCharacters:
    def halves(self, *texts: str) -> list[bytes]:
        return [delta(content=text) for text in texts]

    def test_two_halves_in_two_events_are_one_character(self, provider: Loopback, way: Way) -> None:
        provider.script(Reply(raw=[*self.halves("so \ud83d", "\ude00 it", " is"), END]))
        with hasty(provider.url, way) as llm:
            seen = told(llm)
        assert (seen.texts, seen.error) == (["so ", "😀 it", " is"], None)

    @pytest.mark.parametrize("texts", [("a\ud83d", "b"), ("a", "\ude00b"), ("a\ud83db",)])
    def test_one_that_stays_alone_is_replaced_so_that_all_can_be_sent_on(
        self, provider: Loopback, way: Way, texts: tuple[str, ...]
    ) -> None:
        provider.script(Reply(raw=[*self.halves(*texts), END]))
        with hasty(provider.url, way) as llm:
            seen = told(llm)
        assert (seen.text, seen.error) == ("a�b", None)
        assert all(json.loads(chunk.model_dump_json()) for chunk in seen.of(StreamChunk))

    def test_one_at_the_end_of_the_answer_is_replaced_too(self, provider: Loopback, way: Way) -> None:
        last = call(index=0, id="x", function={"name": "look", "arguments": '{"at": "\ud83d'})
        provider.script(Reply(raw=[delta(reasoning_content="hm\ud83d"), *self.halves("a\ud83d"), last, END]))
        with hasty(provider.url, way) as llm:
            seen = told(llm)
        finished = seen.one(LLMFinished)
        assert (seen.text, finished.text, finished.reasoning) == ("a�", "a�", "hm�")
        assert finished.tool_calls[0].arguments == '{"at": "�'

    def test_in_tool_arguments_and_reasoning_too(self, provider: Loopback, way: Way) -> None:
        pieces = ['{"at": "\ud83d', '\ude00"}']
        calls = [
            call(index=0, id="x", function={"name": "look", "arguments": pieces[0]}),
            call(index=0, function={"arguments": pieces[1]}),
        ]
        thoughts = [delta(reasoning_content=text) for text in ("\ud83d", "\ude00")]
        provider.script(Reply(raw=[*thoughts, *calls, END]))
        with hasty(provider.url, way) as llm:
            finished = told(llm).one(LLMFinished)
        assert json.loads(finished.tool_calls[0].arguments) == {"at": "😀"}
        assert finished.reasoning == "😀"


class TestToolCalls:
    def test_two_calls_with_one_id_are_both_carried_out(self, provider: Loopback, way: Way) -> None:
        twice = [ToolCall("look", {"at": "a"}, id="same"), ToolCall("look", {"at": "b"}, id="same")]
        provider.script(Reply(tool_calls=twice), Reply(text="Done"))
        with hasty(provider.url, way) as llm:
            seen = played(solo(llm, tools=[look]))
        assert [each.result for each in seen.of(ToolFinished)] == ["seen a", "seen b"]
        assert seen.error is None

    @pytest.mark.parametrize("name", [None, "find"])
    def test_the_pieces_of_a_second_call_with_the_same_id_stay_together(self, name: str | None) -> None:
        first, second = ToolCallDelta(0, "same", "look", '{"at": 1}'), ToolCallDelta(1, "same", "find", '{"at"')
        rest = [ToolCallDelta(1, "same", name, piece) for piece in (": 2", "}")]
        finished = outcome(Scripted([first, second, *rest]).llm.events("Hi")).one(LLMFinished)
        assert [(each.name, each.arguments) for each in finished.tool_calls] == [
            ("look", '{"at": 1}'),
            ("find", '{"at": 2}'),
        ]

    def test_calls_that_share_an_index_are_told_apart_by_their_ids(self, provider: Loopback, way: Way) -> None:
        first, second = (
            call(index=0, id=name, function={"name": "look", "arguments": json.dumps({"at": name})})
            for name in ("a", "b")
        )
        provider.script(Reply(raw=[first, second, delta(finish="tool_calls") + DONE]), Reply(text="Done"))
        with hasty(provider.url, way) as llm:
            seen = played(solo(llm, tools=[look]))
        assert [each.result for each in seen.of(ToolFinished)] == ["seen a", "seen b"]

    def test_a_call_is_found_without_a_look_at_all_others(self) -> None:
        class Index(int):
            compared = 0

            def __eq__(self, other: object) -> bool:
                Index.compared += 1
                return int(self) == other

            __hash__ = int.__hash__

        deltas = [ToolCallDelta(Index(n), f"call_{n}", "look", part) for n in range(300) for part in ("{", "}")]
        finished = outcome(Scripted(deltas).llm.events("Hi")).one(LLMFinished)
        assert [asked.arguments for asked in finished.tool_calls] == ["{}"] * 300
        assert Index.compared < 10 * len(deltas)

    @pytest.mark.parametrize("arguments", ['{"at": ', "at=it", '["it"]', "\x00", '{"at": "it"} {"at": "it"}'])
    def test_arguments_that_are_no_json_are_told_to_the_model(
        self, provider: Loopback, way: Way, arguments: str
    ) -> None:
        provider.script(Reply(tool_calls=[ToolCall("look", arguments)]), Reply(text="Sorry"))
        with hasty(provider.url, way) as llm:
            seen = played(solo(llm, tools=[look]))
        assert len(seen.of(ToolFailed)) == 1
        assert (seen.terminals, seen.error) == (1, None)
        told_to_the_model = provider.requests[1].messages[-1]
        assert told_to_the_model["role"] == "tool"
        assert "Error: the arguments of look are not valid" in told_to_the_model["content"]

    def test_arguments_that_never_become_json_end_with_the_agents_turns(self, provider: Loopback, way: Way) -> None:
        provider.answer(lambda request: Reply(tool_calls=[ToolCall("look", '{"at": ')]))
        with hasty(provider.url, way) as llm:
            seen = played(solo(llm, agent={"max_iter": 3}, tools=[look]))
        assert isinstance(seen.error, RuntimeError)
        assert "raise max_iter" in str(seen.error)
        assert len(provider.requests) == 3
        assert seen.terminals == 1


class TestStatuses:
    @pytest.mark.parametrize(
        ("status", "kind", "words"),
        [
            (401, "AuthenticationError", "no."),
            (408, "Timeout", "no."),
            (429, "RateLimitError", "no."),
            (429, "RateLimitError", "invalid_request_error"),
            (504, "Timeout", "no."),
        ],
    )
    def test_the_class_goes_by_the_status_whatever_the_words_are(
        self, provider: Loopback, litellm: Any, status: int, kind: str, words: str
    ) -> None:
        provider.script(Reply(status=status, error=words))
        with hasty(provider.url) as llm:
            seen = told(llm)
        assert type(seen.error) is getattr(litellm, kind)
        assert words in str(seen.error)
        assert getattr(seen.error, "status_code", None) == status

    @pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504])
    def test_what_another_attempt_may_mend_is_tried_again(self, provider: Loopback, status: int) -> None:
        provider.script(Reply(status=status), Reply(text="Hello"))
        with hasty(provider.url, max_retries=1) as llm:
            seen = told(llm)
        assert (seen.text, seen.error) == ("Hello", None)
        assert len(seen.of(LLMRetrying)) == 1

    @pytest.mark.parametrize("asked", ["soon", "-5", "1e9", "3600", "nan", "inf", "Wed, 21 Oct 2093 07:28:00 GMT"])
    def test_a_retry_after_that_no_one_would_wait_for_is_not_kept(self, provider: Loopback, asked: str) -> None:
        provider.script(Reply(status=429, headers={"retry-after": asked}), Reply(text="Hello"))
        with hasty(provider.url, max_retries=1) as llm:
            seen = told(llm)
        assert seen.text == "Hello"
        assert 0 <= seen.one(LLMRetrying).delay < 1

    @pytest.mark.parametrize("body", [b"", b"{", b"null", b"[1]", b'{"error": null}', b'{"error": {"message": 5}}'])
    def test_an_error_body_of_any_kind_keeps_the_class(self, provider: Loopback, litellm: Any, body: bytes) -> None:
        provider.script(Reply(status=503, raw=[body], content_type="application/json"))
        with hasty(provider.url) as llm:
            seen = told(llm)
        assert type(seen.error) is litellm.ServiceUnavailableError
        assert "try again later" in str(seen.error)

    def test_an_error_body_that_never_ends_runs_into_the_time_limit(self, provider: Loopback, litellm: Any) -> None:
        provider.script(Reply(status=500, raw=[b'{"error": ', b"x"], stall_after=1, content_type="application/json"))
        with hasty(provider.url, timeout=0.1) as llm:
            seen = told(llm)
        assert type(seen.error) is litellm.Timeout


def test_the_next_call_is_none_the_worse(provider: Loopback, way: Way) -> None:
    broken = [
        Reply(raw=[SAID, b"data: {nope\n\n"]),
        Reply(raw=[SAID], reset_after=1),
        Reply(status=500),
        Reply(raw=[delta(content="x" * 5 * MIB) + END]),
    ]
    with hasty(provider.url, way) as llm:
        for reply in broken:
            provider.script(reply, Reply(text="fine"))
            assert told(llm).error is not None
            assert told(llm).text == "fine"


def test_a_failing_call_leaves_one_beside_it_alone(provider: Loopback, way: Way) -> None:
    provider.script(Reply(text=["a", "b"], hold_after=1), Reply(raw=[SAID, b"data: {nope\n\n"]))
    beside = Outcome(lambda _: None)
    with hasty(provider.url, way) as llm:
        beside.subscribe_to(llm.events("Hi"))
        provider.wait_until(lambda p: p.holding)
        assert outcome(llm.events("Hi")).error is not None
        provider.release()
        beside.ended.wait()
    assert (beside.text, beside.error) == ("ab", None)
