"""OpenTelemetry's own in-memory exporter shows what a run looks like to a tracer."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from rxflow import Flow, StreamChunk, operators as ops
from rxflow.adapters import otel
from rxflow.flow import start
from rxflow.tools import tool
from tests.adapters import flows
from tests.gate import Gate
from tests.scripted import Scripted, calls
from tests.team import solo


class Recorder:
    """An SDK that keeps what it gets."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader], shutdown_on_exit=False)

    def operator(self, **given: Any) -> Callable[[Any], Any]:
        return otel.trace(tracer_provider=self.tracers, meter_provider=self.meters, **given)

    def run(self, flow: Flow[Any], **given: Any) -> "Recorder":
        """Run ``flow`` to its end, whatever that is."""

        async def run() -> None:
            ended = asyncio.Event()
            flow.events().pipe(self.operator(**given)).subscribe(None, flows.finally_(ended.set), ended.set)
            await ended.wait()

        asyncio.run(run())
        return self

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def span(self, name: str) -> ReadableSpan:
        (found,) = (span for span in self.spans if span.name == name)
        return found

    @property
    def tree(self) -> dict[str, Any]:
        """Names of spans, each with those in it."""
        children: dict[int | None, list[ReadableSpan]] = {}
        for span in sorted(self.spans, key=lambda span: span.start_time or 0):
            children.setdefault(span.parent.span_id if span.parent else None, []).append(span)

        def below(span_id: int | None) -> dict[str, Any]:
            found = children.get(span_id, [])
            return {span.name: below(span.context.span_id if span.context else None) for span in found}

        return below(None)

    @property
    def points(self) -> dict[str, list[Any]]:
        """The points of each metric."""
        data = self._reader.get_metrics_data()
        if data is None:
            return {}
        metrics = [
            metric for resource in data.resource_metrics for scope in resource.scope_metrics for metric in scope.metrics
        ]
        return {metric.name: list(metric.data.data_points) for metric in metrics}


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_run_is_a_tree_of_spans(recorder: Recorder) -> None:
    recorder.run(flows.Plain())
    assert recorder.tree == {
        "invoke_workflow Plain": {
            "method report": {"invoke_workflow crew": {"task 0": {"invoke_agent Writer": {"chat scripted": {}}}}}
        }
    }


def test_the_span_that_is_current_at_subscription_is_the_parent(recorder: Recorder) -> None:
    with recorder.tracers.get_tracer("program").start_as_current_span("request"):
        recorder.run(flows.Plain())
    assert list(recorder.tree) == ["request"]
    assert list(recorder.tree["request"]) == ["invoke_workflow Plain"]


def test_it_is_the_parent_too_if_the_run_lives_on_another_thread(recorder: Recorder) -> None:
    with recorder.tracers.get_tracer("program").start_as_current_span("request"):
        chunks = list(flows.Plain().observe().pipe(recorder.operator(), ops.text(), ops.to_output()))
    assert "".join(map(str, chunks)) == "low tide at noon"
    assert list(recorder.tree) == ["request"]


def test_a_call_has_the_names_of_the_conventions(recorder: Recorder) -> None:
    call = recorder.run(flows.Plain()).span("chat scripted")
    given = attributes(call)
    assert call.kind is SpanKind.CLIENT
    assert given["gen_ai.operation.name"] == "chat"
    assert given["gen_ai.request.model"] == "scripted"
    assert given["gen_ai.usage.input_tokens"] == 2
    assert given["gen_ai.usage.output_tokens"] == 1
    assert given["gen_ai.response.finish_reasons"] == ("stop",)
    assert given["rxflow.usage.cost"] == 0.5
    agent = attributes(recorder.span("invoke_agent Writer"))
    assert agent["gen_ai.operation.name"] == "invoke_agent"
    assert agent["gen_ai.agent.name"] == "Writer"
    assert attributes(recorder.span("invoke_workflow Plain"))["gen_ai.workflow.name"] == "Plain"


def test_every_name_that_a_run_writes_is_in_the_table(recorder: Recorder) -> None:
    for each in flows.ALL:
        recorder.run(each(), capture_content=True)
    names = {name for span in recorder.spans for name in attributes(span)}
    assert names <= set(otel.NAMES.values())
    assert set(recorder.points) <= set(otel.NAMES.values())


def test_no_content_unless_asked(recorder: Recorder) -> None:
    for each in (flows.WithTools, flows.Failing):
        recorder.run(each())
    written = "".join(span.to_json() for span in recorder.spans)
    for content in ("calm", "north", "A text", "Hm.", "line cut", "no ship"):
        assert content not in written


def test_content_if_asked(recorder: Recorder) -> None:
    recorder.run(flows.WithTools(), capture_content=True)
    *_, last = (span for span in recorder.spans if span.name == "chat scripted")
    asked = json.loads(attributes(last)["gen_ai.input.messages"])
    assert asked[0]["role"] == "system"
    assert asked[2]["parts"][0] == {
        "type": "tool_call",
        "id": "call_0",
        "name": "look",
        "arguments": {"where": "north"},
    }
    assert asked[3]["parts"] == [
        {"type": "tool_call_response", "id": "call_0", "response": "calm sea in the north"},
    ]
    (said,) = json.loads(attributes(last)["gen_ai.output.messages"])
    assert said["parts"] == [{"type": "text", "content": "all calm"}]
    assert said["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("message", "part"),
    [
        ({"role": "user", "content": ["some text"]}, {"type": "text", "content": "some text"}),
        (
            {"role": "assistant", "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}]},
            {"type": "tool_call", "id": "c", "name": "f", "arguments": "x"},
        ),
    ],
)
def test_a_message_of_a_rare_form_is_recorded_too(recorder: Recorder, message: Any, part: Any) -> None:
    list(Scripted("low").llm.events([message]).pipe(recorder.operator(capture_content=True), ops.to_output()))
    (recorded,) = json.loads(attributes(recorder.span("chat scripted"))["gen_ai.input.messages"])
    assert recorded["parts"] == [part]


def test_a_run_that_fails_says_so_in_each_span_that_failed(recorder: Recorder) -> None:
    recorder.run(flows.Failing())
    assert {span.name for span in recorder.spans if span.status.status_code is StatusCode.ERROR} == {
        "invoke_workflow Failing",
        "method report",
        "invoke_workflow crew",
        "task 0",
        "invoke_agent Writer",
        "chat scripted",
    }
    assert attributes(recorder.span("chat scripted"))["error.type"] == "ConnectionError"


def test_an_answer_that_was_sent_back_is_noted(recorder: Recorder) -> None:
    recorder.run(flows.Retracting())
    assert [event.name for span in recorder.spans for event in span.events].count("rxflow.retracted") == 1


def test_a_question_is_an_event_with_its_kind(recorder: Recorder) -> None:
    recorder.run(flows.Paying())
    events = [event for span in recorder.spans for event in span.events if event.name == "rxflow.input_requested"]
    assert [dict(event.attributes or {}) for event in events] == [{"rxflow.input.kind": "approval"}]


def test_what_a_failing_sibling_cut_off_is_cancelled(recorder: Recorder) -> None:
    recorder.run(flows.SiblingFails())
    assert attributes(recorder.span("method broken"))["error.type"] == "LookupError"
    for name in ("method slow", "chat scripted"):
        assert recorder.span(name).status.status_code is StatusCode.ERROR
        assert attributes(recorder.span(name))["error.type"] == "cancelled"


def test_tool_calls_are_below_their_agent_and_what_they_run_is_below_them(recorder: Recorder) -> None:
    recorder.run(flows.WithSubAgent())
    crew = recorder.tree["invoke_workflow WithSubAgent"]["method report"]["invoke_workflow crew"]
    assert list(crew["task 0"]["invoke_agent Writer"]["execute_tool ask_harbour"]) == ["invoke_workflow harbour"]


def test_tool_calls_of_one_name_have_a_span_each(recorder: Recorder) -> None:
    recorder.run(flows.WithTools())
    looks = [span for span in recorder.spans if span.name == "execute_tool look"]
    assert [attributes(span)["gen_ai.tool.call.id"] for span in looks] == ["call_0", "call_1"]
    assert attributes(recorder.span("execute_tool sink"))["error.type"] == "OSError"
    assert attributes(recorder.span("execute_tool sink"))["rxflow.tool.failed_at"] == "run"


def test_disposing_ends_all_spans_as_cancelled(recorder: Recorder) -> None:
    gate = Gate()

    class Waiting(Flow[dict[str, Any]]):
        @start()
        async def wait(self) -> str:
            return str(await solo(Scripted(["first ", gate, "last"])).kickoff_async())

    async def run() -> None:
        heard = asyncio.Event()

        def hear(chunk: StreamChunk) -> None:
            heard.set()

        running = Waiting().observe().pipe(recorder.operator()).subscribe(hear)
        await heard.wait()
        running.dispose()
        running.dispose()

    asyncio.run(run())
    assert len(recorder.spans) == 6
    assert {attributes(span)["error.type"] for span in recorder.spans} == {"cancelled"}


def test_runs_at_the_same_time_do_not_mix(recorder: Recorder) -> None:
    operator = recorder.operator()

    async def run() -> None:
        ended = [asyncio.Event() for _ in range(5)]
        for each in ended:
            flows.Plain().events().pipe(operator).subscribe(on_completed=each.set)
        for each in ended:
            await each.wait()

    asyncio.run(run())
    assert len({span.context.trace_id for span in recorder.spans if span.context}) == 5


def test_metrics_of_calls(recorder: Recorder) -> None:
    points = recorder.run(flows.Plain()).points
    by_type = {point.attributes["gen_ai.token.type"]: point.sum for point in points["gen_ai.client.token.usage"]}
    assert by_type == {"input": 2, "output": 1}
    (duration,) = points["gen_ai.client.operation.duration"]
    (first,) = points["gen_ai.client.operation.time_to_first_chunk"]
    assert 0 <= first.sum <= duration.sum
    assert duration.attributes["gen_ai.request.model"] == "scripted"


def test_a_call_says_how_long_its_first_chunk_took(recorder: Recorder) -> None:
    assert attributes(recorder.run(flows.Plain()).span("chat scripted"))["gen_ai.response.time_to_first_chunk"] >= 0


class Wordless(Exception):
    """An error whose text cannot be had."""

    def __str__(self) -> str:
        raise OSError("no words")


class Unwritable(Flow[dict[str, Any]]):
    """Its agent, its tool and its error have texts that cannot be encoded."""

    @start()
    def report(self) -> str:
        @tool
        def fetch() -> str:
            """Fetch."""
            return flows.HALF_A_PAIR

        agent: dict[str, Any] = {"tools": [fetch], "role": flows.HALF_A_PAIR}
        solo(Scripted(calls(("fetch", {})), "done"), agent=agent).kickoff()
        raise OSError(flows.HALF_A_PAIR)


def test_every_text_can_be_sent_by_an_exporter(recorder: Recorder) -> None:
    recorder.run(Unwritable(), capture_content=True)
    assert len(recorder.spans) == 8
    for span in recorder.spans:
        texts = [value for value in attributes(span).values() if isinstance(value, str)]
        for text in (span.name, span.status.description or "", *texts):
            text.encode()


def test_a_span_whose_error_has_no_text_ends_too(recorder: Recorder) -> None:
    class Breaks(Flow[dict[str, Any]]):
        @start()
        def report(self) -> str:
            raise Wordless

    recorder.run(Breaks(), capture_content=True)
    assert [span.name for span in recorder.spans] == ["method report", "invoke_workflow Breaks"]


class Failing(SpanProcessor):
    """A processor of a user's own that fails when a span begins, or when it ends."""

    def __init__(self, at: str) -> None:
        self._at = at

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        if self._at == "start":
            raise OSError("collector down")

    def on_end(self, span: ReadableSpan) -> None:
        if self._at == "end":
            raise OSError("collector down")


@pytest.mark.parametrize("at", ["start", "end"])
def test_a_processor_that_fails_changes_nothing_in_the_run(at: str, caplog: pytest.LogCaptureFixture) -> None:
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(Failing(at))
    plain = list(flows.Plain().events().pipe(ops.to_output()))
    traced = list(flows.Plain().events().pipe(otel.trace(tracer_provider=tracers), ops.to_output()))
    assert [type(event) for event in traced] == [type(event) for event in plain]
    assert sum("failed; the run goes on" in record.message for record in caplog.records) == 1
