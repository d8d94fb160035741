"""The page: what a reader sees on it, and what it must never do."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings, strategies as st

from rxflow.flow._drawing.markup import draw_page
from rxflow.flow._graph import AllOf, AnyOf, Graph, Method, Trigger, listen, read_graph, router, start
from tests.flow.drawing import flows
from tests.flow.drawing.drawn import any_overlap, edges_in, labels_in, legend_in, nodes_in, page_of, parsed

HOSTILE = "</text></title></style><script>alert(1)</script><img src=https://example.org/x onerror='a(\"1\")'>&amp;"
FLOWS = [
    *(flows.Simple, flows.Cycle, flows.OwnLabel, flows.Nested, flows.OpenRouter, flows.OpenRouters),
    *(flows.chain(30), flows.fan(8)),
]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Any graph, sensible or not, with any text in it."""
    names = draw(st.lists(st.text(max_size=12), max_size=8, unique=True))
    triggers = st.sampled_from([*names, "x", "y"])
    some = st.lists(triggers, min_size=1, max_size=3)
    methods: dict[str, Method] = {}
    for name in names:
        inner, outer = (AnyOf, AllOf) if draw(st.booleans()) else (AllOf, AnyOf)
        nested = inner(tuple(map(Trigger, draw(some))))
        conditions = [None, nested, outer((nested, Trigger(draw(triggers)), nested))]
        methods[name] = Method(
            name=name,
            is_start=draw(st.booleans()),
            is_router=draw(st.booleans()),
            condition=draw(st.sampled_from(conditions)),
            labels=draw(st.none() | st.just(()) | some.map(tuple)),
            takes_result=True,
            doc=draw(st.text(max_size=12)),
        )
    return Graph(draw(st.text(max_size=12)), methods)


class Outside(HTMLParser):
    """Notes every element, and all that would load or run something."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.suspicious: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        for name, _ in attrs:
            if name.startswith("on") or name in ("src", "href", "xlink:href", "srcset", "action", "data"):
                self.suspicious.append(f"{tag} {name}")


@pytest.mark.parametrize("cls", FLOWS)
def test_every_method_is_drawn_once(cls: type) -> None:
    tips = [node.tip.split("\n")[0] for node in nodes_in(page_of(cls))]
    assert [tip for tip in tips if tip in read_graph(cls).methods] == list(read_graph(cls).methods)


@pytest.mark.parametrize("cls", FLOWS)
def test_no_two_nodes_overlap(cls: type) -> None:
    assert not any_overlap([node.box for node in nodes_in(page_of(cls))])


@settings(deadline=None, max_examples=50)
@given(graphs(), st.text(max_size=20))
def test_any_graph_gives_a_well_formed_page_that_can_be_saved(graph: Graph, title: str) -> None:
    text = draw_page(graph, title)
    text.encode()
    assert not any_overlap([node.box for node in nodes_in(text)])


def test_the_title_is_the_heading() -> None:
    assert "<h1>Simple</h1>" in page_of(flows.Simple)
    assert parsed(draw_page(read_graph(flows.Simple), "a < b")).findtext(".//{*}h1") == "a < b"


def test_a_node_shows_name_and_doc() -> None:
    fetch = nodes_in(page_of(flows.Simple))[0]
    assert (fetch.name, fetch.doc) == ("fetch", "Get the article.")


def test_kinds_differ_in_class_and_shape() -> None:
    kinds = {node.name: node.kinds for node in nodes_in(page_of(flows.Cycle))}
    assert kinds["plan"] == {"start"}
    assert kinds["write"] == {"listener"}
    assert kinds["judge"] == {"router"}
    assert kinds["OR"] == {"or"}
    assert page_of(flows.Cycle).count("<polygon") == 2  # the router, and its sample in the legend


def test_an_and_is_a_node_into_which_its_inputs_lead() -> None:
    text = page_of(flows.fan(3))
    (join,) = [node for node in nodes_in(text) if node.kinds == {"and"}]
    assert join.name == "AND"
    assert "worker_0, worker_1, worker_2" in join.tip
    assert len(edges_in(text)) == 3 + 3 + 1


def test_a_label_is_written_on_its_edge_which_differs_from_others() -> None:
    text = page_of(flows.Cycle)
    assert labels_in(text) == ["revise", "publish"]
    assert len(edges_in(text, "labelled")) == 3
    assert len(edges_in(text, "trigger")) == 3


def test_a_label_that_may_come_differs_too() -> None:
    text = page_of(flows.OpenRouter)
    assert len(edges_in(text, "maybe")) == 1
    assert labels_in(text) == ["whatever"]


def test_every_edge_has_an_arrowhead() -> None:
    text = page_of(flows.Cycle)
    assert len(edges_in(text)) == sum(len(edge.findall("*[@class='head']")) for edge in edges_in(text)) == 6


def test_the_legend_explains_what_occurs_and_nothing_else() -> None:
    assert legend_in(page_of(flows.Simple)) == "start listener runs after"
    assert "AND: waits for all of them" in legend_in(page_of(flows.Nested))


def test_text_too_long_for_its_box_is_cut_and_complete_in_the_tooltip() -> None:
    name = "a_name_that_goes_on_and_on_" * 5
    (node,) = nodes_in(page_of(flows.flow(**{name: start()})))
    assert node.name.endswith("…")
    assert node.box.width < 260
    assert name in node.tip


def test_names_docs_and_labels_are_data() -> None:
    def method(self: object) -> None: ...

    method.__doc__ = HOSTILE

    def listener(self: object) -> None: ...

    methods = {HOSTILE: start()(router(emit=[HOSTILE, f"x{HOSTILE}"])(method)), "b": listen(HOSTILE)(listener)}
    text = draw_page(read_graph(type(HOSTILE, (), methods)), HOSTILE)
    seen = Outside()
    seen.feed(text)
    assert not seen.elements & {"script", "img"}
    assert not seen.suspicious
    assert text.count("</style>") == 1
    assert nodes_in(text)[0].tip.startswith(f"{HOSTILE}\n{HOSTILE}\n")


@pytest.mark.parametrize("cls", [*FLOWS, flows.Empty])
def test_a_page_loads_nothing_and_runs_nothing(cls: type) -> None:
    text = page_of(cls)
    seen = Outside()
    seen.feed(text)
    assert not seen.elements & {"script", "link", "img", "iframe", "object", "embed", "image", "use", "foreignobject"}
    assert not seen.suspicious
    assert "url(" not in text
    assert "@import" not in text
    assert set(re.findall(r"https?://[^\"' ]+", text)) <= {"http://www.w3.org/1999/xhtml", "http://www.w3.org/2000/svg"}


def test_the_policy_forbids_all_but_the_pages_own_style() -> None:
    policy = parsed(page_of(flows.Simple)).find(".//{*}meta[@http-equiv='Content-Security-Policy']")
    assert policy is not None
    assert policy.get("content") == "default-src 'none'; style-src 'unsafe-inline'"


def test_the_page_has_dark_colours_too() -> None:
    assert "@media (prefers-color-scheme: dark)" in page_of(flows.Simple)


def test_a_drawing_shrinks_with_the_window_but_never_grows() -> None:
    drawing = parsed(page_of(flows.Simple)).find(".//{*}svg")
    assert drawing is not None
    width = int(drawing.get("width", "0"))
    assert drawing.get("style", "").endswith(f",100%,{width}px)")
    assert width < 400


def test_an_empty_flow_says_so() -> None:
    text = page_of(flows.Empty)
    assert "Empty has no methods to draw." in text
    assert not parsed(text).findall(".//{*}svg")
