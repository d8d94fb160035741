"""The Mermaid text: the same graph, and nothing in it that Mermaid would take for syntax."""

from __future__ import annotations

import re

from hypothesis import given, strategies as st

from rxflow.flow._drawing.markup import draw_mermaid
from rxflow.flow._graph import listen, read_graph, router, start
from tests.flow.drawing.flows import Cycle, Empty, OpenRouter, Simple, flow

STATEMENT = re.compile(
    r"    (?:n\d+(?:\(\[|\[|\{\{|\(\(|>)\"[^\"]*\"(?:\]\)|\]|\}\}|\)\))"
    r"|n\d+ (?:-->|-\.->)(?:\|\"[^\"]*\"\|)? n\d+"
    r"|classDef \w+ [\w#:,. -]+"
    r"|class n\d+(?:,n\d+)* \w+)"
)


def lines(cls: type) -> list[str]:
    return draw_mermaid(read_graph(cls)).splitlines()


def test_nodes_and_edges_are_those_of_the_graph() -> None:
    assert lines(Simple)[:6] == [
        "flowchart TD",
        '    n0(["fetch<br/>Get the article#46;"])',
        '    n1["summarise<br/>Boil it down#46;"]',
        '    n2["publish"]',
        "    n0 --> n1",
        "    n1 --> n2",
    ]


def test_routers_joins_and_labels_have_shapes_of_their_own() -> None:
    text = lines(Cycle)
    assert '    n2{{"judge"}}' in text
    assert '    n4(("OR"))' in text
    assert '    n2 -.->|"revise"| n4' in text
    assert '    n5>"give up"]' in text
    assert '    n1 -.->|"whatever"| n2' in lines(OpenRouter)


def test_kinds_are_coloured() -> None:
    assert "    class n0 start" in lines(Cycle)
    assert "    class n2 router" in lines(Cycle)


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_no_text_breaks_the_syntax(label: str, doc: str) -> None:
    def begin(self: object) -> None: ...

    begin.__doc__ = doc

    def on(self: object) -> None: ...

    cls = type("Odd", (), {"begin": start()(router(emit=[label])(begin)), "on": listen(label)(on)})
    first, *statements = lines(cls)
    assert first == "flowchart TD"
    for statement in statements:
        assert STATEMENT.fullmatch(statement), statement


def test_markdown_and_markup_are_spelt_out() -> None:
    cls = flow(a=start(), r=router("a", emit=['1. "x"</b>`_u_`']), b=listen('1. "x"</b>`_u_`'))
    label = "1#46; #34;x#34;#60;#47;b#62;#96;#95;u#95;#96;"
    assert f'    n1 -.->|"{label}"| n2' in lines(cls)


def test_an_underscore_inside_a_word_is_left_readable() -> None:
    assert '    n0(["look_up"])' in "\n".join(lines(flow(look_up=start()))).replace("<br/>One step of many#46;", "")


def test_an_empty_flow_says_so() -> None:
    assert lines(Empty) == ["flowchart TD", '    empty["Empty has no methods"]']
