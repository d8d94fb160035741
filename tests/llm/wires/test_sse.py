"""The fast lane's reading of server-sent events: however the bytes are cut, the same events."""

import json
import time
from collections.abc import Iterable

import pytest
from hypothesis import given, strategies as st

from rxflow.llm._reading import refuse_other_types
from rxflow.llm._wires.sse import EventData, MalformedEvent, OversizedEvent
from tests.llm.wire import cut

LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
# Characters of one to four bytes, and those that other readers take for the end of a line.
TEXT = st.text("ab {}:\r\n\x0b\x85é\u2028€😀", max_size=12)
# What stands between the data lines and must not show: comments, other fields, empty lines.
NOISE = st.lists(
    st.sampled_from([b": keep-alive", b":", b"event: message", b"id: 7", b"retry: 1000", b"datax: no", b""]), max_size=3
)
MARK = b"\xef\xbb\xbf"
PLACES = st.lists(st.integers(min_value=0, max_value=10_000), max_size=12)


def read(pieces: Iterable[bytes]) -> list[bytes]:
    """The events of a body that ends after the last piece, without the white space that JSON does not see."""
    events = EventData()
    data = [each for piece in pieces for each in events.feed(piece)]
    return [bytes(each).strip() for each in [*data, *events.flush()]]


@given(st.lists(st.tuples(TEXT, NOISE), max_size=5), LINE_ENDS, PLACES)
def test_the_same_events_come_however_the_bytes_are_cut(
    said: list[tuple[str, list[bytes]]], line_end: bytes, places: list[int]
) -> None:
    lines: list[bytes] = []
    for text, noise in said:
        # Unescaped, so that cuts fall within characters too.
        lines += [*noise, b"data: " + json.dumps(text, ensure_ascii=False).encode(), b""]
    body = b"".join(line + line_end for line in lines)
    assert [json.loads(each) for each in read(cut(body, places))] == [text for text, _ in said]


@given(st.lists(TEXT, min_size=1, max_size=4), LINE_ENDS, PLACES)
def test_the_lines_of_one_event_are_joined(texts: list[str], line_end: bytes, places: list[int]) -> None:
    lines = json.dumps(texts, indent=1).split("\n")
    body = b"".join(b"data: " + line.encode() + line_end for line in lines) + line_end
    (data,) = read(cut(body, places))
    assert json.loads(data) == texts


def test_the_blank_after_the_colon_may_be_missing() -> None:
    assert read([b"data:1\n\ndata: 2\n\n"]) == [b"1", b"2"]


def test_an_event_comes_with_the_bytes_that_complete_it_and_not_before() -> None:
    events = EventData()
    assert list(events.feed(b"data: 1\n")) == []
    assert [each.strip() for each in events.feed(b"\ndata: 2")] == [b"1"]
    assert [each.strip() for each in events.feed(b"\n\n")] == [b"2"]


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\r"])
def test_the_last_event_counts_without_its_blank_line(end: bytes) -> None:
    assert read([b"data: 1\n\ndata: 2" + end]) == [b"1", b"2"]


@given(PLACES)
def test_lines_of_one_body_may_end_in_different_ways(places: list[int]) -> None:
    body = b"data: 1\r\rdata: 2\n\r\ndata: 3\r\n\rdata: 4\r\n\n"
    assert read(cut(body, places)) == [b"1", b"2", b"3", b"4"]


def test_a_line_end_of_two_characters_that_is_cut_in_two_is_one() -> None:
    events = EventData()
    assert list(events.feed(b"data: 1\r")) == []
    assert list(events.feed(b"\n")) == []
    assert [each.strip() for each in events.feed(b"data: 2\r\n\r")] == [b"1\n 2"]
    assert list(events.feed(b"\n")) == []


@given(PLACES)
def test_a_byte_order_mark_before_the_first_event_is_not_part_of_it(places: list[int]) -> None:
    assert read(cut(MARK + b"data: 1\n\ndata: 2\n\n", places)) == [b"1", b"2"]


@pytest.mark.parametrize(
    "body", [MARK, MARK[:2], MARK + b"\n", MARK * 2 + b"data: 1\n\n", b": 1\n" + MARK + b"data: 1\n\n"]
)
def test_elsewhere_it_is_the_name_of_no_field(body: bytes) -> None:
    assert read([body]) == read([body[n : n + 1] for n in range(len(body))]) == []


def test_a_body_without_data_has_no_events() -> None:
    assert read([b": hello\n\n", b"event: ping\n\n", b"\n\n\n"]) == []


@pytest.mark.parametrize("piece", [b"x" * (1 << 20), b"data: " + b"x" * (1 << 20) + b"\n"], ids=["line", "event"])
def test_what_never_ends_is_refused_before_it_fills_the_memory(piece: bytes) -> None:
    with pytest.raises(OversizedEvent, match="more than 4,194,304 bytes"):
        read([piece] * 5)


def test_many_events_in_one_read_are_no_oversized_event() -> None:
    events = EventData()
    piece = b"data: " + b"x" * (1 << 20) + b"\n\n"
    assert sum(1 for _ in events.feed(piece * 20)) == 20


@pytest.mark.parametrize("piece", [b"x" * 40, b"x\ndata: " + b"x" * 33], ids=["one line", "many lines"])
def test_a_huge_event_in_small_pieces_takes_time_in_proportion_to_its_size(piece: bytes) -> None:
    events = EventData()
    before = time.process_time()
    for block in [b"data: ", *[piece] * 50_000]:
        assert list(events.feed(block)) == []
    (data,) = events.feed(b"\n\n")
    assert len(data) > 50_000 * 33
    # Were each piece joined to all before it, several seconds.
    assert time.process_time() - before < 1.5


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("line", [b"data:", b"data: ", b"event: ping\ndata:", b"data:\ndata: "])
@given(places=PLACES)
def test_an_event_without_data_keeps_the_connection_open(line: bytes, end: bytes, places: list[int]) -> None:
    body = line + b"\n\n" + b"data: 1\n\n" + line + b"\n\n" + b"data: 2\n\n" + line
    assert read(cut(body.replace(b"\n", end), places)) == [b"1", b"2"]


def test_the_content_type_of_a_stream_may_have_capitals() -> None:
    refuse_other_types("Text/Event-Stream; charset=utf-8")
    with pytest.raises(MalformedEvent, match="its content type is 'Text/HTML'"):
        refuse_other_types("Text/HTML")
