"""What screens make of events: a tree, lanes and figures, from any events in any order."""

import io
import unicodedata
from collections import deque
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, strategies as st
from rich.console import Console

from rxflow import Flow, operators as ops
from rxflow._text import escape, shorten, show_line, show_lines
from rxflow.flow import listen, start
from rxflow.runs import Runs
from rxflow.screens._drawing import Drawing, Transcript
from rxflow.screens._lanes import MAX_LANE_CHARS, MAX_LANES, Kind, fit_encoding, show_call, show_error, show_seconds
from rxflow.screens._run_tree import RunTree
from rxflow.screens._spans import State
from rxflow.tools import tool
from rxflow.types.chunks import Origin, StreamChunk
from rxflow.types.events import (
    AgentStarted,
    Custom,
    FlowFailed,
    FlowFinished,
    FlowStarted,
    InputReceived,
    InputRequested,
    LLMFinished,
    LLMRetrying,
    LLMStarted,
    MethodFailed,
    MethodFinished,
    MethodStarted,
    Retracted,
    TaskStarted,
    ToolFailed,
    ToolFinished,
    ToolProgress,
    ToolStarted,
)
from rxflow.types.results import UsageMetrics
from rxflow.types.streaming import ToolCallChunk
from tests.adapters import flows
from tests.scripted import Scripted, calls
from tests.team import a_crew, a_task, an_agent, solo

USAGE = UsageMetrics(prompt_tokens=10, completion_tokens=5, total_tokens=15, successful_requests=1)
TEXTS = st.text(st.characters(), max_size=60)


def at(span: str, parent: str = "", **labels: Any) -> Origin:
    return Origin(span_id=span, parent_span_id=parent, **labels)


def begun(methods: tuple[str, ...] = ()) -> RunTree:
    """A flow in whose method ``write`` an agent streams."""
    tree = RunTree(methods)
    tree.add(FlowStarted(origin=at("f", flow_name="Trip"), inputs={}, at=100.0))
    tree.add(MethodStarted(origin=at("m", "f", flow_method="write"), at=100.0))
    tree.add(TaskStarted(origin=at("t", "m", task_name="Write"), description="Write", at=101.0))
    tree.add(AgentStarted(origin=at("a", "t", agent_role="Writer", task_name="Write"), at=101.0))
    tree.add(LLMStarted(origin=call(), model="openai/gpt-4o", messages=[{"content": "x" * 40}], at=101.0))
    return tree


def call(attempt: int = 0, span: str = "c") -> Origin:
    return at(span, "a", agent_role="Writer", task_name="Write", llm_call_id=span, attempt=attempt)


def chunk(text: str, when: float = 102.0, attempt: int = 0) -> StreamChunk:
    return StreamChunk(
        content=text, span_id="c", parent_span_id="a", agent_role="Writer", attempt=attempt, at=when, llm_call_id="c"
    )


def test_a_call_counts_with_an_estimate_until_its_provider_reports() -> None:
    tree = begun()
    assert not tree.spending.usage.is_reported
    tree.add(chunk("four" * 4))
    assert (tree.spending.usage.total_tokens, tree.spending.usage.is_estimated) == (10 + 4, True)
    estimated = tree.spending.cost
    assert estimated is not None
    assert estimated > 0
    tree.add(LLMFinished(origin=call(), text="", usage=USAGE, cost=0.25, at=103.0))
    assert (tree.spending.usage, tree.spending.cost) == (USAGE, 0.25)
    assert [span.usage.total_tokens for span in tree.roots[0].walk()] == [15] * 5


def test_what_is_open_when_the_run_is_stopped_is_stopped_and_billed() -> None:
    tree = begun(("write", "print"))
    tree.add(chunk("four" * 4))
    tree.stop()
    assert [span.state for span in tree.roots[0].walk()] == [State.STOPPED] * 5 + [State.WAITING]
    assert tree.describe_outcome().startswith("stopped after ")
    assert "0 of 2 methods, ~14 tokens, $0.00" in tree.describe_outcome()


def test_a_span_without_an_end_of_its_own_ends_with_the_one_around_it() -> None:
    tree = begun()
    tree.add(chunk("word"))
    tree.add(MethodFinished(origin=at("m", "f", flow_method="write"), result=None, at=105.0))
    states = {span.span_id: span.state for span in tree.roots[0].walk()}
    assert states == {
        "f": State.RUNNING,
        "m": State.DONE,
        "t": State.STOPPED,
        "a": State.STOPPED,
        "c": State.STOPPED,
    }
    assert not any(lane.is_open for lane in tree.lanes)


def test_times_are_those_of_the_events_also_long_after() -> None:
    tree = begun()
    tree.add(MethodFinished(origin=at("m", "f", flow_method="write"), result=None, at=103.5))
    tree.add(FlowFinished(origin=at("f", flow_name="Trip"), result="done", usage=USAGE, at=104.0))
    tree.complete()
    assert tree.seconds == 4.0
    assert [span.measure(tree.now) for span in tree.roots[0].walk()][:2] == [4.0, 3.5]
    assert tree.result == "done"


def test_retracted_text_is_void_and_other_attempts_are_not() -> None:
    tree = begun()
    tree.add(chunk("wrong"))
    said = tree.add(Retracted(origin=at("t", "m"), attempts=(0,), error=ValueError("no figure"), span_ids=("c",)))
    tree.add(chunk("right", attempt=1))
    (lane,) = tree.lanes
    assert [(entry.text, entry.is_void) for entry in lane.entries] == [("wrong", True), ("right", False)]
    assert said == "5 characters taken back: ValueError: no figure"
    assert tree.retries == 1


def spelled(piece: str, tool_id: str = "call_text_0", **labels: Any) -> StreamChunk:
    """A piece of a tool call that a model writes."""
    return call(**labels).tool_chunk(ToolCallChunk(tool_id=tool_id, tool_name="search", arguments=piece))


def calls_of(tree: RunTree) -> list[tuple[str, bool]]:
    """Each tool call in the only lane, and whether it is void."""
    (lane,) = tree.lanes
    return [(entry.text, entry.is_void) for entry in lane.entries if entry.kind is Kind.CALL]


def search_started(number: int, tool_id: str = "call_text_0") -> ToolStarted:
    origin = at(f"tool{number}", "a", agent_role="Writer")
    return ToolStarted(origin=origin, tool_id=tool_id, tool_name="search", arguments={"q": number})


def test_a_tool_call_after_a_retraction_is_not_void_although_its_id_repeats() -> None:
    tree = begun()
    tree.add(spelled('{"q": 0}'))
    tree.add(Retracted(origin=at("t", "m"), attempts=(0,), error=OSError("cut off"), span_ids=("c",)))
    tree.add(spelled('{"q"', attempt=1))
    tree.add(spelled(": 1}", attempt=1))
    assert calls_of(tree) == [('search {"q": 0}', True), ('search {"q": 1}', False)]
    tree.add(search_started(1))
    assert calls_of(tree) == [('search {"q": 0}', True), ("search(q=1)", False)]


def test_a_tool_call_without_an_id_does_not_replace_another_one() -> None:
    tree = begun()
    tree.add(spelled('{"q": 0}', "", span="c"))
    tree.add(spelled('{"q": 1}', "", span="d"))
    assert calls_of(tree) == [('search {"q": 0}', False), ('search {"q": 1}', False)]
    for number in (1, 2, 3):
        tree.add(search_started(number, ""))
    assert [shown for shown, _ in calls_of(tree)] == ["search(q=2)", "search(q=1)", "search(q=3)"]


def test_a_tool_call_shows_its_arguments_progress_and_result_even_if_ids_repeat() -> None:
    tree = begun()
    for number in range(2):
        origin = at(f"tool{number}", "a", agent_role="Writer")
        tree.add(ToolStarted(origin=origin, tool_id="call_0", tool_name="depth", arguments={"place": number}))
        tree.add(ToolProgress(origin=origin, progress=1, total=4, message="sounding"))
        tools = [span for span in tree.roots[0].walk() if span.kind == "tool"]
        assert tools[number].note == "25% sounding"
        if number == 0:
            tree.add(ToolFinished(origin=origin, tool_id="call_0", tool_name="depth", result="11 m"))
        else:
            tree.add(ToolFailed(origin=origin, tool_id="call_0", tool_name="depth", error=OSError("no echo")))
    tools = [span for span in tree.roots[0].walk() if span.kind == "tool"]
    assert [(span.label, span.state, span.note) for span in tools] == [
        ("depth(place=0)", State.DONE, "'11 m'"),
        ("depth(place=1)", State.FAILED, "OSError: no echo"),
    ]
    (lane,) = tree.lanes
    assert [entry.text for entry in lane.entries if entry.kind is Kind.CALL] == ["depth(place=0)", "depth(place=1)"]


def test_what_runs_in_a_tool_is_below_it_and_its_failure_is_the_tool_s() -> None:
    @tool
    async def ask_harbour(question: str) -> str:
        """Ask the harbour."""
        helper = an_agent(Scripted(["the ", ConnectionError("line cut")]), role="Harbour")
        return str(await a_crew(a_task(helper), name="harbour").kickoff_async())

    class Trip(Flow[dict[str, Any]]):
        @start()
        def report(self) -> str:
            model = Scripted(calls(("ask_harbour", {"question": "open?"})), "nobody knows")
            return str(solo(model, agent={"tools": [ask_harbour]}).kickoff())

    tree = RunTree()
    for event in Trip().events().pipe(ops.to_output()):
        tree.add(event)
    tree.complete()
    (root,) = tree.roots
    (called,) = [span for span in root.walk() if span.kind == "tool"]
    assert {span.kind for span in called.walk()} >= {"tool", "crew", "task", "agent", "llm"}
    assert (called.state, root.state, tree.state) == (State.FAILED, State.DONE, State.DONE)
    assert (tree.result, tree.error) == ("nobody knows", None)


def test_what_a_tool_emits_and_asks_is_shown_at_the_tool() -> None:
    tree = begun()
    origin = at("tool", "a", agent_role="Writer")
    tree.add(ToolStarted(origin=origin, tool_id="call_0", tool_name="depth", arguments={}))
    (called,) = [span for span in tree.roots[0].walk() if span.kind == "tool"]
    tree.add(Custom(origin=origin, name="sounding", value=11))
    assert called.note == "sounding: 11"
    tree.add(InputRequested(origin=origin, request_id="q", message="Go on?"))
    assert (called.state, called.note) == (State.ASKING, "Go on?")
    tree.add(InputReceived(origin=origin, request_id="q", value="yes"))
    assert called.state is State.RUNNING


def test_a_method_of_a_cycle_has_one_row_which_counts_its_rounds() -> None:
    tree = RunTree(("write", "judge"))
    tree.add(FlowStarted(origin=at("f"), inputs={}))
    for number in range(3):
        origin = at(f"m{number}", "f", flow_method="write")
        tree.add(MethodStarted(origin=origin))
        tree.add(MethodFinished(origin=origin, result=None))
    assert [(span.label, span.runs) for span in tree.roots[0].children] == [("write", 3), ("judge", 0)]
    assert tree.progress == (1, 2)


def test_a_retry_of_a_call_is_said_at_its_agent() -> None:
    tree = begun()
    said = tree.add(LLMRetrying(origin=call(), error=ConnectionError("overloaded"), delay=1.0))
    assert said == "retries in 1.0 s: ConnectionError: overloaded"
    assert "retries in 1.0 s" in {span.span_id: span.note for span in tree.roots[0].walk()}["a"]


def shown(events: Iterable[Any]) -> RunTree:
    """The tree of a run that completes."""
    tree = RunTree()
    for event in events:
        tree.add(event)
    tree.complete()
    return tree


def test_a_run_that_succeeds_in_another_attempt_is_done() -> None:
    tries: list[int] = []

    class Flaky(Flow[dict[str, Any]]):
        @start()
        def report(self) -> str:
            tries.append(1)
            if len(tries) == 1:
                raise OSError("no wind")
            return "calm"

    tree = shown(Flaky().events().pipe(ops.retry_stream(2)).pipe(ops.to_output()))
    assert [root.state for root in tree.roots] == [State.FAILED, State.DONE]
    assert (tree.state, tree.error, tree.result) == (State.DONE, None, "calm")


def test_a_run_that_an_operator_ends_early_is_stopped() -> None:
    tree = shown(flows.Plain().events().pipe(ops.limit_tokens(1), ops.to_output()))
    assert tree.state is State.STOPPED
    assert tree.describe_outcome().startswith("stopped after ")


def test_a_run_that_was_paused_and_resumed_is_shown_as_that() -> None:
    before, after = flows.pay_after_resuming(True)
    tree = shown([*before, *after])
    assert [root.state for root in tree.roots] == [State.PAUSED, State.DONE]
    assert (tree.state, tree.tools) == (State.DONE, 1)


class Asks(Flow[dict[str, Any]]):
    """Its run pauses in the second and in the third of four methods."""

    @start()
    def first(self) -> None: ...

    @listen(first)
    def second(self) -> Any:
        return self.ask("Second?")

    @listen(second)
    def third(self) -> Any:
        return self.ask("Third?")

    @listen(third)
    def fourth(self) -> None: ...


def test_the_methods_of_a_run_that_was_paused_and_resumed_are_counted_together() -> None:
    tree = RunTree(("first", "second", "third", "fourth"))
    progress: list[tuple[int, int] | None] = []
    with Runs() as runs:
        run, last = runs.start(Asks()), -1
        for _ in range(3):
            for event in run.events(after=last).pipe(ops.to_output()):
                tree.add(event)
            progress.append(tree.progress)
            last = run.look_up().last
            if run.status == "paused":
                run.resume({each.request_id: "yes" for each in run.pending()}, Asks())
    tree.complete()
    assert progress == [(1, 4), (2, 4), (4, 4)]
    assert [root.state for root in tree.roots] == [State.PAUSED, State.PAUSED, State.DONE]
    assert [[span.label for span in root.children] for root in tree.roots] == [
        ["first", "second"],
        ["first", "second", "third"],
        ["first", "second", "third", "fourth"],
    ]
    assert not [span for root in tree.roots for span in root.walk() if span.note == "not reached"]


def test_the_methods_of_another_attempt_are_counted_anew() -> None:
    tree = RunTree(("write", "print"))
    for attempt in range(2):
        tree.add(FlowStarted(origin=at(f"f{attempt}"), inputs={}))
        tree.add(MethodStarted(origin=at(f"m{attempt}", f"f{attempt}", flow_method="write")))
        if attempt == 0:
            error = OSError("no wind")
            tree.add(MethodFailed(origin=at("m0", "f0", flow_method="write"), error=error))
            tree.add(FlowFailed(origin=at("f0"), error=error))
    assert tree.progress == (0, 2)
    assert [[span.label for span in root.children] for root in tree.roots] == [["write"], ["write", "print"]]


def test_the_time_of_bare_chunks_is_from_the_first_to_the_last() -> None:
    tree = RunTree()
    for when in (100.0, 160.0):
        tree.add(StreamChunk(content="x", agent_role="Cook", llm_call_id="c", span_id="c", at=when))
    tree.complete()
    assert tree.seconds == 60.0
    assert tree.describe_outcome().startswith("done after 1 min 00 s")


def test_bare_chunks_have_lanes_too() -> None:
    tree = RunTree()
    for role in ("Cook", "Poet", "Cook"):
        tree.add(StreamChunk(content=f"{role}! ", agent_role=role, llm_call_id=role, span_id=role))
    said = {lane.speaker: lane.entries[0].text for lane in tree.lanes}
    assert said == {"Cook": "Cook! Cook! ", "Poet": "Poet! "}


def test_a_flood_is_bounded() -> None:
    tree = begun()
    for _ in range(200):
        tree.add(chunk("x" * 1000))
    (lane,) = tree.lanes
    assert sum(entry.size for entry in lane.entries) <= MAX_LANE_CHARS
    for number in range(200):
        origin = at(f"tool{number}", "a", agent_role="Writer")
        piece = ToolCallChunk(tool_id=f"{number}", tool_name="depth", arguments='{"place": "' + "x" * 500)
        tree.add(call().tool_chunk(piece))
        tree.add(ToolStarted(origin=origin, tool_id=f"{number}", tool_name="depth", arguments={"place": "x" * 500}))
        tree.add(ToolFinished(origin=origin, tool_id=f"{number}", tool_name="depth", result="y" * 500))
        assert lane.size == sum(len(entry.text) for entry in lane.entries) <= MAX_LANE_CHARS
    for number in range(2 * MAX_LANES):
        tree.add(StreamChunk(content="x", agent_role=f"agent {number}", task_id=f"{number}", span_id=f"s{number}"))
    assert len(tree.lanes) == MAX_LANES


def test_a_speaker_whose_lane_made_room_for_others_is_shown_when_it_speaks_again() -> None:
    tree = RunTree()
    for number in [*range(MAX_LANES + 1), 0]:
        tree.add(StreamChunk(content="x", agent_role=f"agent {number}", task_id=f"{number}", span_id=f"s{number}"))
    assert "agent 0" in [lane.speaker for lane in tree.lanes]


def test_a_speaker_that_only_calls_a_tool_does_not_make_room_for_the_next_one() -> None:
    tree = RunTree()
    for number in range(MAX_LANES - 1):
        tree.add(StreamChunk(content="x", agent_role="A", task_id=f"{number}", span_id=f"s{number}", at=100.0))
    for number in range(2):
        origin = at(f"tool{number}", agent_role=f"caller {number}")
        tree.add(ToolStarted(origin=origin, tool_id="x", tool_name="depth", arguments={}, at=101.0))
    assert [lane.speaker for lane in tree.lanes][-2:] == ["caller 0", "caller 1"]


@given(TEXTS, st.sampled_from([20, 60, 200]), st.sampled_from(["utf-8", "ascii", "latin-1"]))
def test_any_text_is_drawn_without_control_characters(text: str, width: int, encoding: str) -> None:
    tree = begun()
    tree.add(chunk(text))
    tree.add(ToolStarted(origin=at("x", "a", agent_role=text), tool_id=text, tool_name=text, arguments={text: text}))
    tree.add(ToolFailed(origin=at("x", "a", agent_role=text), tool_id=text, tool_name=text, error=OSError(text)))
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
    console = Console(file=file, width=width, height=24, color_system=None)
    drawing = Drawing(tree, console)
    console.print(drawing.draw_frame())
    tree.fail(ValueError(text))
    console.print(drawing.draw_summary())
    file.flush()
    file.seek(0)
    shown = file.read()
    assert not [each for each in shown if unicodedata.category(each) in ("Cc", "Cs") and each != "\n"]
    assert not set(shown) & set("\u202e\u2066\u2028")


@given(TEXTS)
def test_any_text_is_one_clean_line_where_it_has_to_be(text: str) -> None:
    for line in (show_line(text), shorten(text), show_call(text, {text: [text]}), show_error(ValueError(text))):
        assert len((line + ".").splitlines()) == 1
        line.encode()
    assert "<" not in escape(text)
    assert fit_encoding(show_lines(text), "ascii").isascii()


@given(st.lists(TEXTS, max_size=8))
def test_a_transcript_loses_no_word(texts: list[str]) -> None:
    transcript = Transcript(begun(), 80)
    lines = [line for text in texts for line in transcript.read(chunk(text))]
    lines += list(transcript.finish())[:-1]
    said = "".join(line.removeprefix("Writer: ") for line in lines)
    assert "".join(said.split()) == "".join(show_lines("".join(texts)).split())


LOOP: list[object] = [1]
LOOP.append(LOOP)
CIRCLE: dict[str, object] = {}
CIRCLE["self"] = CIRCLE


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (deque([1, 2]), "[1, 2]"),
        (range(9), "[0, 1, 2, 3, 4]"),
        (LOOP, "[1, [1, [1, [1, […]]]]]"),
        (CIRCLE, "{'self': {'self': {'self': {'self': {…}}}}}"),
        ([[[[1]]]], "[[[[1]]]]"),
    ],
)
def test_any_value_is_shown(value: object, shown: str) -> None:
    tree = begun()
    tree.add(Custom(origin=at("m", "f", flow_method="write"), name="x", value=value))
    assert [span.note for span in tree.roots[0].walk() if span.note] == [f"x: {shown}"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (60, "1 min 00 s"),
        (3725, "1 h 02 min"),
        (-1, "0.0 s"),
    ],
)
def test_times_are_short(seconds: float, shown: str) -> None:
    assert show_seconds(seconds) == shown
