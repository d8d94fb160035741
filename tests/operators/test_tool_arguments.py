"""``tool_arguments`` reads the arguments of tool calls while they are being written."""

from typing import Any

import pytest
import reactivex as rx
from pydantic import BaseModel, Field

from rxflow import operators as ops
from rxflow.testing import Marbles, check_operator
from rxflow.tools import tool
from tests.operators.pieces import cut, delta, said
from tests.scripted import Scripted, calls
from tests.signals import signals_of
from tests.team import solo


class Draft(BaseModel):
    title: str = ""
    pages: int = Field(default=0, le=9)


VALUES = {
    "a": delta('{"ti', "write"),
    "b": delta('tle": "On', "write"),
    "c": delta(' Rx", "pages": 1', "write"),
    "d": delta("}", "write"),
    "x": delta('{"where": "up"}', "look", index=1),
    "t": said("text"),
    "s": "no chunk",
}
DRAFTS = {
    "0": Draft(),
    "1": Draft(title="On"),
    "2": Draft(title="On Rx"),
    "3": Draft(title="On Rx", pages=1),
}


def read(*items: Any, model: Any = None, tool: str | None = None) -> list[Any]:
    return signals_of(rx.of(*items).pipe(ops.tool_arguments(model, tool=tool))).items


def test_it_keeps_the_rules() -> None:
    check_operator(ops.tool_arguments(Draft, tool="write"), items=[VALUES[each] for each in "abtcds"], holds_back=True)


def test_they_grow_as_values_of_a_model(marbles: Marbles) -> None:
    source = marbles.cold("-a-b-t-c-d|", VALUES)
    marbles.expect(source.pipe(ops.tool_arguments(Draft))).to_be("-0-1---2-3|", DRAFTS)
    marbles.expect_subscriptions(source).to_be("^---------!")


def test_they_grow_as_dicts_without_one() -> None:
    assert read(*(VALUES[each] for each in "abcd")) == [
        {},
        {"title": "On"},
        {"title": "On Rx"},
        {"title": "On Rx", "pages": 1},
    ]


def test_only_those_of_one_tool_are_read_where_it_is_named() -> None:
    pieces = [VALUES[each] for each in "abxcd"]
    assert read(*pieces, model=Draft, tool="write") == list(DRAFTS.values())
    assert read(*pieces, tool="look") == [{"where": "up"}]


def test_a_tool_may_be_named_as_it_was_made() -> None:
    assert read(delta('{"a": 1}', "look_around"), tool="look around") == [{"a": 1}]


def test_calls_come_one_after_the_other() -> None:
    first, second = (cut(text, 6) for text in ('{"title": "A"}', '{"title": "B"}'))
    pieces = [*(delta(piece) for piece in first), *(delta(piece, index=1) for piece in second)]
    assert [draft.title for draft in read(*pieces, model=Draft)] == ["", "A", "", "B"]


def test_the_last_value_of_a_call_is_whole_before_the_next_begins() -> None:
    text = '{"title": "' + "very " * 100 + 'long"}'
    pieces = [*(delta(piece) for piece in cut(text, 1)), delta('{"title": "B"}', index=1)]
    assert Draft.model_validate_json(text) in read(*pieces, model=Draft)


def test_those_that_do_not_fit_give_no_value_and_no_error() -> None:
    assert read(delta('{"title": "A", "pages": 10}'), model=Draft) == [Draft(title="A")]
    assert read(delta('{"title"'), delta('{"title": "B"}', index=1), model=Draft) == [Draft(), Draft(title="B")]
    for broken in ("[1, 2]", "nonsense", '"\ud83d"'):
        assert read(delta(broken), model=Draft) == read(delta(broken)) == []


@pytest.mark.parametrize("model", [None, Draft])
@pytest.mark.parametrize(
    "text", ["[1, 2]", "[[1], 2]", '["a", {"b": 1}]', '{"title": "B"} [1, 2]', "12, 3", '"a", "b"']
)
def test_so_do_those_that_are_no_object_however_they_are_cut(model: Any, text: str) -> None:
    for size in range(1, 6):
        pieces = [delta(piece, index=1) for piece in cut(text, size)]
        seen = signals_of(rx.of(*pieces, delta('{"title": "A"}', index=2)).pipe(ops.tool_arguments(model)))
        assert seen.ends == ["completed"]
        assert seen.items[-1] in ({"title": "A"}, Draft(title="A"))


def test_no_arguments_at_all_are_the_models_defaults() -> None:
    assert read(delta(""), model=Draft) == [Draft()]


def test_each_subscription_reads_for_itself(marbles: Marbles) -> None:
    growing = marbles.cold("-a-b-|", VALUES).pipe(ops.tool_arguments(Draft))
    marbles.expect(growing).to_be("-0-1-|", DRAFTS)
    marbles.expect(growing, "--^").to_be("---0-1-|", DRAFTS)


def test_in_a_run_it_reads_what_each_call_asks_for() -> None:
    @tool
    def write(title: str, pages: int = 1) -> str:
        """Write a draft."""
        return title * pages

    model = Scripted(calls(("write", {"title": "A"})), calls(("write", {"title": "B", "pages": 2})), "Done.")
    crew = solo(model, agent={"tools": [write]})
    shown = signals_of(crew.observe().pipe(ops.tool_arguments(Draft, tool="write")))
    assert shown.items == [Draft(title="A"), Draft(title="B", pages=2)]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            {"model": dict},
            TypeError,
            r"^tool_arguments\(\) takes a pydantic model, which is a class; got <class 'dict'>$",
        ),
        ({"tool": ""}, ValueError, r"^tool_arguments\(tool=…\) is empty"),
        ({"tool": 5}, TypeError, r"^tool_arguments\(tool=…\) is not the name of a tool: 5$"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ops.tool_arguments(**given)
