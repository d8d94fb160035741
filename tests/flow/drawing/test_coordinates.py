"""The layout: nothing overlaps, everything leads down, and no route passes through what it does not belong to."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given, settings, strategies as st

from rxflow.flow._drawing.coordinates import Box, Layout, Point, Route, lay_out
from rxflow.flow._drawing.layering import Link, find_back_links
from tests.flow.drawing.drawn import any_overlap

SIZE = (120.0, 50.0)


@st.composite
def drawings(draw: st.DrawFn) -> tuple[list[tuple[float, float]], list[Link]]:
    sizes = draw(st.lists(st.tuples(st.floats(20, 300), st.floats(15, 90)), min_size=1, max_size=14))
    node = st.integers(0, len(sizes) - 1)
    label = st.none() | st.tuples(st.floats(10, 200), st.just(20.0))
    return sizes, draw(st.lists(st.builds(Link, node, node, label), max_size=24))


def points(route: Route) -> Iterator[Point]:
    """Points along a route, close to each other."""
    at = route.start
    for step in route.steps:
        one, two, end = step if len(step) == 3 else (at, step[0], step[0])
        for n in range(11):
            t = n / 10
            weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
            way = list(zip(weights, (at, one, two, end), strict=True))
            yield sum(w * p[0] for w, p in way), sum(w * p[1] for w, p in way)
        at = end


def inside(point: Point, box: Box) -> bool:
    return 0.1 < point[0] - box.x < box.width - 0.1 and 0.1 < point[1] - box.y < box.height - 0.1


def all_boxes(layout: Layout) -> list[Box]:
    return [*layout.boxes, *(box for box in layout.label_boxes if box is not None)]


@settings(deadline=None, max_examples=50)
@given(drawings())
def test_no_two_boxes_overlap_and_all_are_on_the_page(drawing: tuple[list[tuple[float, float]], list[Link]]) -> None:
    layout = lay_out(*drawing)
    boxes = all_boxes(layout)
    assert not any_overlap(boxes)
    assert not any(box.x < 0 or box.y < 0 for box in boxes)
    assert not any(box.x + box.width > layout.width or box.y + box.height > layout.height for box in boxes)


@settings(deadline=None, max_examples=50)
@given(drawings())
def test_no_route_runs_through_a_box_or_off_the_page(drawing: tuple[list[tuple[float, float]], list[Link]]) -> None:
    layout = lay_out(*drawing)
    for place, route in enumerate(layout.routes):
        others = [box for box in all_boxes(layout) if box is not layout.label_boxes[place]]
        for point in points(route):
            assert not any(inside(point, box) for box in others)
            assert 0 <= point[0] <= layout.width
            assert 0 <= point[1] <= layout.height


@settings(deadline=None, max_examples=50)
@given(drawings())
def test_a_route_leads_from_under_its_source_through_its_label_to_the_top_of_its_target(
    drawing: tuple[list[tuple[float, float]], list[Link]],
) -> None:
    sizes, links = drawing
    layout = lay_out(sizes, links)
    for link, route, label in zip(links, layout.routes, layout.label_boxes, strict=True):
        source, target = layout.boxes[link.source], layout.boxes[link.target]
        assert abs(route.start[1] - source.y - source.height) < 0.01
        assert source.x < route.start[0] < source.x + source.width
        assert abs(route.end[1] - target.y) < 0.01
        assert target.x < route.end[0] < target.x + target.width
        assert label is None or any(inside(point, label) for point in [*points(route), label.middle])


@settings(deadline=None, max_examples=50)
@given(drawings())
def test_every_link_that_does_not_lead_back_leads_down(drawing: tuple[list[tuple[float, float]], list[Link]]) -> None:
    sizes, links = drawing
    layout = lay_out(sizes, links)
    back = find_back_links(len(sizes), links)
    for place, link in enumerate(links):
        source, target = layout.boxes[link.source], layout.boxes[link.target]
        assert (source.y + source.height < target.y) is (place not in back)


def test_a_chain_stands_in_one_column() -> None:
    layout = lay_out([SIZE] * 30, [Link(n, n + 1) for n in range(29)])
    assert len({box.x for box in layout.boxes}) == 1
    assert [box.y for box in layout.boxes] == sorted(box.y for box in layout.boxes)


def test_a_long_chain_needs_no_deep_stack() -> None:
    layout = lay_out([SIZE] * 1500, [Link(n, n + 1) for n in range(1499)])
    assert len(layout.boxes) == 1500


def test_a_cycle_turns_back_at_its_last_link_only() -> None:
    assert find_back_links(4, [Link(0, 1), Link(1, 2), Link(2, 1), Link(2, 3)]) == {2}


def test_what_leads_back_passes_beside() -> None:
    layout = lay_out([SIZE] * 3, [Link(0, 1), Link(1, 2), Link(2, 1)])
    xs = [point[0] for point in points(layout.routes[2])]
    assert max(xs) > max(box.x + box.width for box in layout.boxes) or min(xs) < min(box.x for box in layout.boxes)


def test_what_passes_several_ranks_is_straight_there() -> None:
    layout = lay_out([SIZE] * 5, [*(Link(n, n + 1) for n in range(4)), Link(0, 4)])
    passing = [point[0] for point in points(layout.routes[4]) if layout.boxes[1].y < point[1] < layout.boxes[3].y]
    assert max(passing) - min(passing) < 0.01


def test_branches_that_need_not_cross_do_not() -> None:
    links = [Link(0, 1), Link(0, 2), Link(0, 3), Link(3, 4), Link(1, 5), Link(2, 6)]
    layout = lay_out([SIZE] * 7, links)
    places = [box.x for box in layout.boxes]
    assert sorted([1, 2, 3], key=lambda n: places[n]) == [
        {5: 1, 6: 2, 4: 3}[n] for n in sorted([4, 5, 6], key=lambda n: places[n])
    ]


def test_parents_stand_above_the_middle_of_their_children() -> None:
    layout = lay_out([SIZE] * 9, [Link(0, n) for n in range(1, 9)])
    children = [box.middle[0] for box in layout.boxes[1:]]
    assert abs(layout.boxes[0].middle[0] - (min(children) + max(children)) / 2) < 1


def test_nothing_has_a_layout_too() -> None:
    assert lay_out([], []).boxes == []
