"""Connections that break, fall silent or drip: one terminal, with what had arrived.

A limit that rxflow does not keep runs into pytest's.
"""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from rxflow.types.chunks import StreamChunk
from rxflow.types.events import Event, LLMFinished
from tests.gate import Gate
from tests.llm.ways import BY_WRAPPER, Way
from tests.llm.wire import event, usage
from tests.loopback import Loopback, Reply
from tests.loopback.encode import DONE
from tests.reliability.told import assert_well_told, hasty, told
from tests.reliability.wire import HEAD, Deed, Step, Wire, script
from tests.signals import Outcome, outcome


def said(text: str) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": text}}]})


STOP = event({"choices": [{"index": 0, "finish_reason": "stop"}]})
USAGE = usage(prompt_tokens=3, completion_tokens=2, total_tokens=5)
BODY = said("a") + STOP + DONE

HTTP_CHUNKS = HEAD[:-2] + b"transfer-encoding: chunked\r\n\r\n"
WHOLE = {
    "as HTTP chunks": HTTP_CHUNKS + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY),
    "to the end of the connection": HEAD + BODY,
}


@pytest.mark.slow
@pytest.mark.parametrize("whole", WHOLE.values(), ids=WHOLE)
def test_a_reset_after_any_byte_keeps_what_had_arrived_and_takes_no_complete_answer_back(
    litellm: Any, way: Way, whole: bytes
) -> None:
    shown, complete = (whole.index(event) + len(event) for event in (said("a"), STOP))
    gates = [Gate() for _ in whole]
    scripts = [script(whole[:sent], gate, Deed.RESET) for sent, gate in enumerate(gates, 1)]
    with Wire(*scripts) as wire, hasty(wire.url, way) as llm:
        for sent, gate in enumerate(gates, 1):
            if sent < shown:
                gate.open()
            seen = outcome(llm.events("Hi"), partial(open_at_text, gate))
            assert_well_told(seen)
            where = f"{sent} bytes of {len(whole)}: {seen.text!r}, {seen.ends}"
            if sent < shown - 2:
                assert seen.text == "", where
                assert isinstance(seen.error, litellm.APIConnectionError | litellm.InternalServerError), where
                assert "base_url" in str(seen.error), where
            elif shown <= sent < complete - 2:
                assert seen.text == "a", where
                assert type(seen.error) is litellm.APIConnectionError, where
                assert "before the answer was complete" in str(seen.error), where
            elif sent >= complete:
                assert (seen.text, seen.error) == ("a", None), where
            # Else the blank line that ends an event is all that is missing: that event may count or not.
        wire.wait_until_gone(len(whole))


def open_at_text(gate: Gate, told: Event) -> None:
    """A reset would overtake bytes that still wait to be read."""
    if isinstance(told, StreamChunk):
        gate.open()


# The last steps before the provider falls silent, and what had been said until then.
SILENCES = {
    "within the head": ((HEAD[:20],), ""),
    "after the head": ((HEAD,), ""),
    "within the first event": ((HEAD, said("a")[:30]), ""),
    "between events": ((HEAD, said("a")), "a"),
    "within an event": ((HEAD, said("a"), said("b")[:30]), "a"),
    "within the line that ends an event": ((HEAD, said("a"), said("b")[:-1]), "a"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "text"), SILENCES.values(), ids=SILENCES)
def test_silence_anywhere_before_the_end_runs_into_the_time_limit(
    litellm: Any, way: Way, steps: tuple[bytes, ...], text: str
) -> None:
    def ask(timeout: float) -> str:
        with Wire(script(*steps, Deed.STALL)) as wire, hasty(wire.url, way, timeout=timeout) as llm:
            seen = told(llm)
            assert type(seen.error) is litellm.Timeout
            assert "LLM(…, timeout=…, connect_timeout=…)" in str(seen.error)
            wire.wait_until_gone()
            return seen.text

    # A busy machine may be silent for longer than the first limit before it has shown the text.
    assert any(ask(timeout) == text for timeout in (0.5, 5.0, 20.0))


ENDINGS = {
    "the finish reason": (STOP,),
    "the usage": (STOP, USAGE),
    "half of [DONE]": (STOP, USAGE, DONE[:8]),
    "[DONE]": (STOP, USAGE, DONE),
}
DEEDS = {"a reset": Deed.RESET, "the end": Deed.CLOSE, "half a close": Deed.HALF_CLOSE, "silence": Deed.STALL}


@pytest.mark.slow
@pytest.mark.parametrize("deed", DEEDS.values(), ids=DEEDS)
@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
def test_an_answer_with_its_finish_reason_is_complete_whatever_becomes_of_the_connection(
    litellm: Any, way: Way, ending: tuple[bytes, ...], deed: Deed
) -> None:
    def ask(timeout: float) -> Outcome:
        with Wire(script(HTTP_CHUNKS, *map(http_chunk, (said("a"), *ending)), deed)) as wire:
            with hasty(wire.url, way, timeout=timeout) as llm:
                seen = told(llm)
            wire.wait_until_gone()
            return seen

    seen = ask(0.5)
    if isinstance(seen.error, litellm.Timeout):  # a busy machine may take longer to the finish reason
        seen = ask(20.0)
    assert (seen.text, seen.error) == ("a", None)
    assert seen.one(LLMFinished).finish_reason == "stop"


@pytest.mark.slow
def test_the_usage_report_is_waited_for_and_silence_in_its_place_is_not(provider: Loopback, way: Way) -> None:
    provider.script(Reply(raw=[said("a"), STOP, USAGE, DONE], pace=0.1))
    with hasty(provider.url, way) as llm:
        assert told(llm).one(LLMFinished).usage.total_tokens == 5
    if (
        way is not BY_WRAPPER
    ):  # litellm's wrapper cannot see when litellm has the finish reason: its limit is the timeout
        provider.script(Reply(raw=[said("a"), STOP], stall_after=2))
        with hasty(provider.url, way, timeout=600) as llm:
            assert told(llm).text == "a"


def test_half_a_close_within_the_answer_is_an_error_at_once(litellm: Any, way: Way) -> None:
    with Wire(script(HEAD, said("a"), Deed.HALF_CLOSE, Deed.STALL)) as wire, hasty(wire.url, way) as llm:
        seen = told(llm)
        assert seen.text == "a"
        assert type(seen.error) is litellm.APIConnectionError
        assert "the stream ended before the answer was complete" in str(seen.error)
        wire.wait_until_gone()  # the server's end is still open: it is the client that closes


def test_a_byte_at_a_time_gives_the_same(provider: Loopback, way: Way) -> None:
    whole = said("aé€😀") + STOP + USAGE + DONE
    provider.script(Reply(raw=[bytes([byte]) for byte in whole]))
    with hasty(provider.url, way) as llm:
        seen = told(llm)
    assert (seen.text, seen.error) == ("aé€😀", None)
    assert seen.one(LLMFinished).usage.total_tokens == 5


@pytest.mark.slow
def test_the_time_limit_is_for_a_silence_and_not_for_the_whole(provider: Loopback, way: Way) -> None:
    def ask(pace: float) -> str:
        provider.script(Reply(raw=[*[said("a")] * 8, STOP + DONE], pace=pace))
        with hasty(provider.url, way, timeout=6 * pace) as llm:
            return told(llm).text

    # A busy machine may be silent for longer than the first limit.
    assert any(ask(pace) == "a" * 8 for pace in (0.1, 1.0, 4.0))


def http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


# What is no HTTP, or breaks its own promise.
BROKEN_HTTP = {
    "another protocol": (b"220 mail.example ESMTP\r\n", Deed.CLOSE),
    "a status that is no number": (b"HTTP/1.1 OK fine\r\n\r\n", Deed.CLOSE),
    "a header without end": (b"HTTP/1.1 200 OK\r\nx-long: " + b"x" * 100_000, Deed.CLOSE),
    "bytes of no meaning": (bytes(range(256)), Deed.CLOSE),
    "nothing": (Deed.CLOSE,),
}


@pytest.mark.parametrize("steps", BROKEN_HTTP.values(), ids=BROKEN_HTTP)
def test_what_is_no_http_is_an_error_that_says_what_to_check(litellm: Any, way: Way, steps: tuple[Step, ...]) -> None:
    with Wire(script(*steps)) as wire, hasty(wire.url, way) as llm:
        seen = told(llm)
    assert type(seen.error) is litellm.InternalServerError
    assert "check that the server runs and that base_url is right" in str(seen.error)


# With the text "a" first, and then:
BROKEN_BODIES = {
    "a chunk size that is none": (HTTP_CHUNKS + http_chunk(said("a")), b"xyz\r\n"),
    "a chunk that is longer than it says": (HTTP_CHUNKS + http_chunk(said("a")), b"2\r\nabcdef\r\n"),
    "a body that is shorter than it says": (HEAD[:-2] + b"content-length: 5000\r\n\r\n" + said("a"), b""),
}


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), BROKEN_BODIES.values(), ids=BROKEN_BODIES)
def test_a_body_that_breaks_the_rules_of_http_is_an_error_with_the_text_kept(
    litellm: Any, way: Way, first: bytes, then: bytes
) -> None:
    gate = Gate()
    with Wire(script(first, gate, then, Deed.CLOSE)) as wire, hasty(wire.url, way, timeout=3.0) as llm:
        seen = told(llm, partial(open_at_text, gate))
    assert seen.text == "a"
    # aiohttp 3.14 does not tell its reader of a broken chunk: that becomes a silence.
    assert type(seen.error) in (litellm.APIConnectionError, litellm.Timeout)


def test_a_body_that_is_not_zipped_as_it_says_is_an_error(litellm: Any, way: Way) -> None:
    head = HEAD[:-2] + b"content-encoding: gzip\r\n\r\n"
    with Wire(script(head, said("a"), Deed.CLOSE)) as wire, hasty(wire.url, way) as llm:
        seen = told(llm)
    assert isinstance(seen.error, litellm.APIConnectionError | litellm.InternalServerError)


DRIPS = {
    "the head": (HEAD[:-2], b"x-more: 1\r\n"),
    "the page of an error": (b"HTTP/1.1 500 No\r\ncontent-type: text/html\r\n\r\n", b"x"),
}


@pytest.mark.parametrize(("first", "drop"), DRIPS.values(), ids=DRIPS)
def test_what_comes_before_an_answer_cannot_drip_for_ever(
    litellm: Any, monkeypatch: pytest.MonkeyPatch, first: bytes, drop: bytes
) -> None:
    monkeypatch.setattr("rxflow.llm._openai_compatible.HEADER_GRACE_S", 0.0)

    async def drip() -> AsyncIterator[Step]:
        yield first
        while True:
            await asyncio.sleep(0.05)
            yield drop

    with Wire(drip) as wire, hasty(wire.url, timeout=0.3, connect_timeout=0.1) as llm:
        assert type(told(llm).error) is litellm.Timeout
        wire.wait_until_gone()
