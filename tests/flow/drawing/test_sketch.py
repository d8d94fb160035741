"""The sketch: which nodes and edges show a graph."""

from __future__ import annotations

import pytest

from rxflow.flow._drawing.sketch import Line, Look, Sketch, sketch_graph
from rxflow.flow._graph import and_, listen, or_, read_graph, router, start
from tests.flow.drawing.flows import Cycle, Empty, Nested, OpenRouter, OpenRouters, OwnLabel, Simple, flow


def sketch(cls: type) -> Sketch:
    return sketch_graph(read_graph(cls))


def lines(cls: type) -> list[str]:
    """The edges, as one would draw them by hand."""
    drawing = sketch(cls)
    arrows = {Line.TRIGGER: "->", Line.LABEL: "=>", Line.MAYBE: "?>"}
    return [
        " ".join(
            [
                drawing.nodes[edge.source].text,
                arrows[edge.line],
                *([] if edge.label is None else [edge.label, ">"]),
                drawing.nodes[edge.target].text,
            ]
        )
        for edge in drawing.edges
    ]


def looks(cls: type) -> dict[str, Look]:
    return {node.text: node.look for node in sketch(cls).nodes}


def test_a_listener_gets_an_edge_from_what_it_listens_to() -> None:
    assert lines(Simple) == ["fetch -> summarise", "summarise -> publish"]


def test_every_kind_of_method_has_a_look_of_its_own() -> None:
    assert looks(Cycle) == {
        "plan": Look.START,
        "write": Look.LISTENER,
        "judge": Look.ROUTER,
        "send": Look.LISTENER,
        "OR": Look.OR,
        "give up": Look.LABEL,
    }
    assert looks(flow(a=start(), b=start("a")))["b"] is Look.WAITING_START
    assert looks(OwnLabel)["knock"] is Look.STARTING_ROUTER


def test_several_conditions_meet_in_a_join() -> None:
    assert lines(flow(a=start(), b=start(), c=listen(and_("a", "b")))) == ["a -> AND", "b -> AND", "AND -> c"]
    assert lines(flow(a=start(), b=start(), c=listen(or_("a", "b")))) == ["a -> OR", "b -> OR", "OR -> c"]


def test_nested_conditions_lead_from_join_to_join() -> None:
    assert lines(Nested) == [
        *("a -> AND", "b -> OR", "c -> OR", "OR -> AND", "AND -> d"),
        *("a -> AND", "b -> AND", "AND -> OR", "d -> OR", "OR -> e"),
    ]


@pytest.mark.parametrize(
    "condition", [or_("a"), and_("a"), or_(and_("a")), or_("a", "a"), and_(or_("a"), "a")], ids=str
)
def test_a_condition_of_one_item_needs_no_join(condition: object) -> None:
    assert lines(flow(a=start(), b=listen(condition))) == ["a -> b"]  # type: ignore[arg-type]


def test_an_or_within_an_or_is_one_or() -> None:
    cls = flow(a=start(), b=start(), c=start(), d=listen(or_("a", or_("b", "c"))))
    assert lines(cls) == ["a -> OR", "b -> OR", "c -> OR", "OR -> d"]


def test_methods_that_wait_for_the_same_share_the_join() -> None:
    both = and_("a", "b")
    cls = flow(a=start(), b=start(), c=listen(both), d=listen(both))
    assert lines(cls) == ["a -> AND", "b -> AND", "AND -> c", "AND -> d"]


def test_a_label_is_carried_from_each_router_that_emits_it() -> None:
    cls = flow(
        a=start(),
        r=router("a", emit=["ok"]),
        s=router("a", emit=["ok"]),
        b=listen("ok"),
    )
    assert lines(cls)[2:] == ["r => ok > b", "s => ok > b"]


def test_a_label_of_several_routers_is_an_or_where_an_and_needs_it() -> None:
    cls = flow(a=start(), r=router("a", emit=["ok"]), s=router("a", emit=["ok"]), b=listen(and_("ok", "a")))
    assert lines(cls)[2:] == ["r => ok > OR", "s => ok > OR", "OR -> AND", "a -> AND", "AND -> b"]


def test_a_label_for_which_nobody_listens_is_an_end() -> None:
    assert "judge => give up" in lines(Cycle)
    end = next(node for node in sketch(Cycle).nodes if node.look is Look.LABEL)
    assert "can end here" in end.tip


def test_the_one_router_with_unknown_labels_may_emit_what_is_listened_for() -> None:
    assert lines(OpenRouter) == ["ask -> decide", "decide ?> whatever > follow"]


def test_routers_with_unknown_labels_meet_at_the_label() -> None:
    assert sorted(lines(OpenRouters)) == [
        *("AND -> follow_too", "ask -> AND", "ask -> decide", "ask -> decide_too"),
        *("decide ?> whatever", "decide_too ?> whatever", "whatever => AND", "whatever => follow"),
    ]


def test_a_label_that_no_router_emits_stands_alone() -> None:
    cls = flow(a=start(), b=listen("typo"))
    assert lines(cls) == ["typo => b"]
    assert looks(cls)["typo"] is Look.LABEL


def test_a_label_named_like_a_method_comes_from_both() -> None:
    cls = flow(a=start(), r=router("a", emit=["b"]), b=start(), c=listen("b"))
    assert lines(cls) == ["a -> r", "b -> c", "r => b > c"]


def test_a_router_may_wait_for_its_own_label() -> None:
    assert "knock => again > knock" in lines(OwnLabel)


def test_the_tooltip_says_what_a_method_waits_for_and_emits() -> None:
    tips = {node.text: node.tip for node in sketch(Cycle).nodes}
    assert tips["write"] == "write\nwaits for or_(plan, revise)"
    assert tips["judge"] == "judge\nwaits for write\nemits publish, revise, give up"


def test_an_empty_flow_has_an_empty_sketch() -> None:
    assert sketch(Empty) == Sketch()
