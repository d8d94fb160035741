"""The journal: what a run had done before the run stopped. With the journal, a resumed run repeats no finished work.

The journal records methods, model calls, tool calls, questions and state. It is built from the events of all
generations of the run. If the run was restarted from the beginning, only the events since the last restart count.

A *step* is one call of a method or a tool, or one start of a flow. A step is named by the path of flows, methods and
tools that leads to it. Each name in the path has a number: 0 for the first call or start, 1 for the second.

A resumed run repeats only unfinished steps. In such a step, the journal finds the recorded model calls, tool calls and
questions by a hash of their input. Records with the same input are used in their order.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import chain, count
from typing import Any, TypeAlias, TypeVar

from rxflow._streaming.scope import UNANSWERED, Answerer, Scope
from rxflow.types import Event, Origin, StreamChunk, UsageMetrics, events as e
from rxflow.types._values import to_json_value

K = TypeVar("K")
T = TypeVar("T")

Step: TypeAlias = tuple[str, ...]
"""The path to a call of a method or a tool, or to a start of a flow. The name of a tool call is the hash of its input.

``("Trip#0", "plan#1")`` is the second call of ``plan`` in the first start of ``Trip``.
"""


class NotResumable(RuntimeError):
    """A run, or a part of a run, cannot be resumed. The message has the reason."""


@dataclass(frozen=True, slots=True)
class Done:
    """A method that finished: its step, and the event with its result."""

    step: Step
    event: e.MethodFinished


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A tool call that was started. ``end`` is the event that ended the call; None if the call had not ended."""

    end: e.ToolFinished | e.ToolFailed | None
    is_changed: bool = False  # whether a person approved the call with other arguments


@dataclass(frozen=True, slots=True)
class Asked:
    """A question. ``received`` is the event with the answer; None if nobody has answered."""

    request: e.InputRequested
    received: e.InputReceived | None


@dataclass(slots=True)
class _Memory:
    """The finished model calls, the tool calls and the questions of one step, by the hash of their input."""

    calls: dict[str, deque[e.LLMFinished]] = field(default_factory=lambda: defaultdict(deque))
    tools: dict[str, deque[ToolUse]] = field(default_factory=lambda: defaultdict(deque))
    questions: dict[str, deque[Asked]] = field(default_factory=lambda: defaultdict(deque))


@dataclass(slots=True)
class _OpenTool:
    """A tool call that has not ended. If ``is_waiting`` is True, it waits for approval, so the tool has not run."""

    step: Step
    key: str  # the hash of the input
    is_waiting: bool = False
    is_changed: bool = False


class Journal(Answerer):
    """Returns the recorded results of methods, models and tools, and the recorded answers of people.

    The methods ``take_call``, ``take_tool`` and ``take_question`` return each record only once. If two calls have the
    same input, the second call gets the second record.

    Args:
        past: all events of the run so far, in their order.
        answers: new answers to open questions. The keys are the ``request_id`` of the questions.

    Raises:
        LookupError: an answer is given to a question that is not open.
        ValueError: ``past`` has no events of a run.
    """

    def __init__(self, past: Iterable[Event], answers: Mapping[str, Any] | None = None) -> None:
        self._memories: dict[Step, _Memory] = defaultdict(_Memory)
        self._counts: Counter[Step] = Counter()
        reader = _Reader(self._memories)
        for event in drop_retracted(past):
            reader.read(event)
        if reader.run_id is None:
            raise ValueError("there is nothing to resume: the run has no events")
        self.run_id = reader.run_id
        self.last_seq = reader.last_seq
        self.next_span = reader.next_span
        self._finished, self._begun, self._flows = reader.finished, reader.begun, reader.flows
        self._states, self._usage = reader.states, reader.usage
        self._cut_off = reader.find_unfinished_text()
        self.pending = tuple(reader.remember_what_is_open())
        self._answers = dict(answers or {})
        unknown = sorted(self._answers.keys() - {request.request_id for request in self.pending})
        if unknown:
            waiting = ", ".join(request.request_id for request in self.pending) or "none"
            raise LookupError(f"no question {unknown[0]!r} waits for an answer; those that wait: {waiting}")

    @property
    def inputs(self) -> Mapping[str, Any]:
        """The inputs with which the first outermost flow began; empty if the run contains no flow."""
        return next((event.inputs for step, event in self._flows.items() if len(step) == 1), dict[str, Any]())

    @property
    def flow_names(self) -> list[str]:
        """The names of the outermost flows."""
        return [event.origin.flow_name for step, event in self._flows.items() if len(step) == 1]

    def resume(self, scope: Scope) -> Scope:
        """Return a copy of ``scope`` for the resumed run.

        The resumed run keeps the run's id, and continues its counts of spans and events.
        """
        run = replace(scope.run, id=self.run_id, first_seq=self.last_seq + 1, spans=count(self.next_span), journal=self)
        return replace(scope, run=run, origin=replace(scope.origin, run_id=self.run_id))

    def open(self, scope: Scope) -> Iterable[Event]:
        """Yield the first events of the resumed run.

        These are FlowResumed, a Retracted event if text or reasoning was cut off, and the questions without an answer.
        """
        yield e.FlowResumed(origin=scope.origin, after=self.last_seq)
        spans, attempts = self._cut_off
        if spans:
            error = NotResumable("the run was interrupted while this was said")
            yield e.Retracted(origin=scope.origin, attempts=attempts, error=error, span_ids=spans)
        for request in self.pending:
            if request.request_id not in self._answers:
                yield replace(request, replayed=True)

    def next_step(self, around: Step, name: str) -> Step:
        """Count one more start of ``name`` inside ``around``: a flow, or the hash of a tool call. Return its step."""
        key = (*around, name)
        self._counts[key] += 1
        return (*around, f"{name}#{self._counts[key] - 1}")

    def find_start(self, flow: Step) -> e.FlowStarted | None:
        """Return the FlowStarted event that a flow emitted before the resumption; None if there is none."""
        return self._flows.get(flow)

    def find_done(self, flow: Step) -> list[Done]:
        """Return the finished methods of a flow, in the order in which they finished."""
        return [Done(step, event) for step, event in self._finished.items() if step[:-1] == flow]

    def find_begun(self, flow: Step) -> set[str]:
        """Return the names of the methods that were called in a flow."""
        return {step[-1].rpartition("#")[0] for step in self._begun if step[:-1] == flow}

    def state_of(self, flow: Step) -> Mapping[str, Any] | None:
        """Return the last recorded state of a flow; None if no state was recorded."""
        return self._states.get(flow)

    def usage_of_done(self, flow: Step) -> Iterable[tuple[UsageMetrics, float | None]]:
        """Yield the usage and cost of each model call in the finished methods of a flow.

        The resumed run does not repeat these calls.
        """
        for done in self.find_done(flow):
            for step, usages in self._usage.items():
                if step[: len(done.step)] == done.step:
                    yield from usages

    def take_call(self, step: Step, model: str, messages: Any) -> e.LLMFinished | None:
        """Remove and return the next recorded answer to a model call with this input; None if there is none."""
        return _take(self._memories[step].calls, hash_request(model, messages))

    def take_tool(self, step: Step, name: str, arguments: Mapping[str, Any]) -> ToolUse | None:
        """Remove and return the next record of a tool call with this input; None if there is none."""
        return _take(self._memories[step].tools, hash_tool(name, arguments))

    def take_question(self, step: Step, request: e.InputRequested) -> Asked | None:
        """Remove and return the next record of a question with the same hash as ``request``; None if there is none."""
        return _take(self._memories[step].questions, hash_question(request))

    async def find_answer(self, request: e.InputRequested) -> Any:
        """Remove and return the new answer to ``request``; UNANSWERED if there is none."""
        return self._answers.pop(request.request_id, UNANSWERED)

    def find_reviewed(self, step: Step, namespace: tuple[str, ...]) -> e.InputRequested | None:
        """Return the recorded question that asks for feedback on the result of a method; None if there is none.

        The question contains the result. ``namespace`` is the namespace of the method. People may also review the
        results of tasks inside the method, but the questions about tasks have longer namespaces.
        """
        for several in self._memories[step].questions.values():
            for asked in several:
                if asked.request.kind == "feedback" and asked.request.origin.namespace == namespace:
                    return asked.request
        return None


class _Reader:
    """Reads the events of a run, generation after generation."""

    def __init__(self, memories: dict[Step, _Memory]) -> None:
        self.run_id: str | None = None
        self.last_seq = -1
        self.next_span = 0
        self.finished: dict[Step, e.MethodFinished] = {}
        self.begun: set[Step] = set()
        self.flows: dict[Step, e.FlowStarted] = {}
        self.states: dict[Step, Mapping[str, Any]] = {}
        self.usage: dict[Step, list[tuple[UsageMetrics, float | None]]] = defaultdict(list)
        self._memories = memories
        self._steps: dict[str, Step] = {"": ()}  # the step of each span
        self._counts: Counter[Step] = Counter()
        # By span_id of a model call without an LLMFinished event: the hash of the call's input.
        self._asking: dict[str, str] = {}
        self._tools: dict[tuple[str, str], _OpenTool] = {}  # by span_id and tool_id, in the current generation
        # The open tool calls of earlier generations, by step, hash of the input, and tool_id.
        self._cut_off_tools: dict[tuple[Step, str, str], deque[_OpenTool]] = defaultdict(deque)
        self._questions: dict[str, tuple[Step, Asked]] = {}
        # By span_id of a span with text or reasoning: its step, the attempts, and whether the span is a model call.
        self._shown: dict[str, tuple[Step, set[int], bool]] = {}

    def read(self, event: Event) -> None:
        self.last_seq = max(self.last_seq, event.seq)
        if isinstance(event, StreamChunk):
            self._note_span(event.span_id)
            if not event.replayed:
                self._note_text(event)
            return
        origin = event.origin
        self._note_span(origin.span_id)
        step = self._steps.get(origin.span_id, self._steps.get(origin.parent_span_id, ()))
        match event:
            case e.FlowResumed():
                self._counts.clear()
                self._cut_off_open_tools()
            case e.Retracted():
                for span in event.span_ids:
                    self._shown.pop(span, None)
            case e.FlowStarted():
                step = self._begin(origin, self._steps.get(origin.parent_span_id, ()), origin.flow_name)
                self.flows.setdefault(step, event)
            case e.MethodStarted():
                step = self._begin(origin, self._steps.get(origin.parent_span_id, ()), origin.flow_method)
                self.begun.add(step)
            case e.MethodFinished():
                self.finished.setdefault(step, event)
                self._memories.pop(step, None)
            case e.StateChanged():
                self.states[step if step in self.flows else step[:-1]] = event.state
            case e.LLMStarted():
                self._steps[origin.span_id] = step
                self._asking[origin.span_id] = hash_request(event.model, event.messages)
            case e.ReasoningChunk():
                self._note_text(origin)
            case e.LLMFinished():
                key = self._asking.pop(origin.span_id, None)
                if not event.replayed:
                    self.usage[step].append((event.usage, event.cost))
                    if key is not None:
                        self._memories[step].calls[key].append(event)
            case e.LLMFailed() | e.LLMCancelled():
                self.usage[step].append((event.usage, event.cost))
            case e.ToolStarted():
                key = hash_tool(event.tool_name, event.arguments)
                if not event.replayed:
                    self._begin_tool(event, step, key)
                self._begin(origin, step, key)
            case e.ToolFinished() | e.ToolFailed() | e.ToolCancelled():
                self._end_tool(event)
            case e.InputRequested():
                self._read_question(event, step)
            case e.InputReceived():
                self._read_answer(event)
            case e.Started():
                self._steps[origin.span_id] = step
            case _:
                pass

    def _read_question(self, event: e.InputRequested, step: Step) -> None:
        if event.replayed:
            if event.request_id in self._questions:  # if it had an answer, the answer did not fit
                step, asked = self._questions[event.request_id]
                self._questions[event.request_id] = step, replace(asked, received=None)
            return
        self._questions[event.request_id] = step, Asked(event, None)
        tool = self._tools.get((event.origin.span_id, event.tool_id))
        if tool is not None:  # the question is whether this tool may be called
            tool.is_waiting = True

    def _read_answer(self, event: e.InputReceived) -> None:
        if event.request_id not in self._questions:
            return
        step, asked = self._questions[event.request_id]
        self._questions[event.request_id] = step, replace(asked, received=event)
        # An answer that was recorded before the run was resumed has no span. The tool then still waits.
        tool = self._tools.get((event.origin.span_id, asked.request.tool_id))
        if tool is not None:
            tool.is_waiting = False
            tool.is_changed = getattr(event.value, "arguments", None) is not None

    def _cut_off_open_tools(self) -> None:
        """Move the open tool calls of the current generation to those of earlier generations."""
        for (_, tool_id), tool in self._tools.items():
            self._cut_off_tools[tool.step, tool.key, tool_id].append(tool)
        self._tools.clear()

    def _begin_tool(self, event: e.ToolStarted, step: Step, key: str) -> None:
        """Note a call. If an earlier generation began the same call, this one continues it, and may still wait."""
        before = _take(self._cut_off_tools, (step, key, event.tool_id))
        self._tools[event.origin.span_id, event.tool_id] = before or _OpenTool(step, key)

    def _end_tool(self, event: e.ToolFinished | e.ToolFailed | e.ToolCancelled) -> None:
        name = event.origin.span_id, event.tool_id
        tool = self._tools.get(name)
        if tool is None or (tool.is_waiting and not isinstance(event, e.ToolFinished)):
            return  # nobody has approved the call, so the tool has not run, and the next generation continues the call
        del self._tools[name]
        if not isinstance(event, e.ToolCancelled):
            self._memories[tool.step].tools[tool.key].append(ToolUse(event, tool.is_changed))

    def remember_what_is_open(self) -> Iterable[e.InputRequested]:
        """Record the tool calls that may have run (not those that waited), and the questions of unfinished steps.

        Yield each recorded question that has no answer.
        """
        self._cut_off_open_tools()
        for tool in chain.from_iterable(self._cut_off_tools.values()):
            if not tool.is_waiting:
                self._memories[tool.step].tools[tool.key].append(ToolUse(None))
        for step, asked in self._questions.values():
            if not any(step[: depth + 1] in self.finished for depth in range(len(step))):
                self._memories[step].questions[hash_question(asked.request)].append(asked)
                if asked.received is None:
                    yield asked.request

    def find_unfinished_text(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Return the ids of the spans whose text and reasoning must be retracted, and the numbers of their attempts.

        These are the spans of unfinished steps with text or reasoning that is not retracted yet. Model calls with an
        LLMFinished event are left out. The resumed run produces the text and the reasoning again.
        """
        spans, attempts = list[str](), set[int]()
        for span, (step, numbers, is_call) in self._shown.items():
            is_done = any(step[: depth + 1] in self.finished for depth in range(len(step)))
            if not is_done and (not is_call or span in self._asking):
                spans.append(span)
                attempts |= numbers
        return tuple(spans), tuple(sorted(attempts))

    def _begin(self, origin: Origin, around: Step, name: str) -> Step:
        key = (*around, name)
        self._counts[key] += 1
        step = (*around, f"{name}#{self._counts[key] - 1}")
        self._steps[origin.span_id] = step
        return step

    def _note_text(self, labels: StreamChunk | Origin) -> None:
        step = self._steps.get(labels.span_id, self._steps.get(labels.parent_span_id, ()))
        self._shown.setdefault(labels.span_id, (step, set(), bool(labels.llm_call_id)))[1].add(labels.attempt)

    def _note_span(self, span: str) -> None:
        run_id, _, number = span.rpartition("/")
        if run_id and number.isdigit():
            if self.run_id is None:
                self.run_id = run_id
            if run_id == self.run_id:
                self.next_span = max(self.next_span, int(number) + 1)


def drop_retracted(past: Iterable[Event]) -> list[Event]:
    """Return the events since the last restart of the run. If there was no restart, return all events.

    Each restart emits a Retracted event with an empty origin. If there was a restart, the result begins with the event
    of the last restart.
    """
    current: list[Event] = []
    for event in past:
        if isinstance(event, e.Retracted) and event.origin == Origin():
            current.clear()
        current.append(event)
    return current


def hash_request(model: str, messages: Any) -> str:
    """Return the hash of a model call's input."""
    return _hash(model, messages)


def hash_tool(name: str, arguments: Any) -> str:
    """Return the hash of a tool call's input."""
    return _hash(name, arguments)


def hash_question(request: e.InputRequested) -> str:
    """Return the hash of a question to a person."""
    return _hash(request.kind, request.message, request.tool_id, request.arguments)


def _hash(*values: Any) -> str:
    # Hash the values as the log writes them in JSON. This JSON is the same in the recorded run and in the resumed run:
    # sets are sorted, and all keys of dicts are strings.
    written = [to_json_value(each) for each in values]
    return sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()


def _take(memory: dict[K, deque[T]], key: K) -> T | None:
    several = memory.get(key)
    return several.popleft() if several else None


def is_repeated(event: Event) -> bool:
    """Return whether ``event`` repeats a chunk, or the start or the end of a model call or tool call.

    The log of the resumed run already has the original event.
    """
    kinds = StreamChunk | e.LLMStarted | e.LLMFinished | e.ToolStarted | e.ToolFinished | e.ToolFailed
    return event.replayed and isinstance(event, kinds)
