"""The Model Context Protocol (MCP), in both directions: agents use a server's tools, and a server offers flows. ::

    with mcp.connect(StdioServerParameters(command="my-server")) as tools:
        agent = Agent(role="Writer", goal="…", backstory="…", tools=tools)

    mcp.run_on_stdio(mcp.create_server("trips", mcp.FlowTool(Trip)))

Needs ``rxflow[mcp]``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, cast

import anyio.to_thread
from pydantic import BaseModel
from reactivex import Observable

from rxflow import operators as ops
from rxflow._lazy import extra
from rxflow._text import describe, encodable, to_plain_json
from rxflow.adapters._mcp_tools import ServerError, connect
from rxflow.flow import Flow
from rxflow.runs import Runs
from rxflow.tools import as_text
from rxflow.types import (
    AgentStarted,
    CrewFinished,
    Event,
    FlowFinished,
    FlowPaused,
    InputRequested,
    MethodStarted,
    StreamChunk,
    ToolProgress,
    ToolStarted,
)

with extra("mcp"):
    from mcp import StdioServerParameters, stdio_server, types as mcp_types
    from mcp.server import Server, ServerRequestContext
    from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
    from mcp.shared.exceptions import NoBackChannelError
    from mcp_types.version import is_version_at_least

__all__ = ["FlowTool", "ServerError", "StdioServerParameters", "connect", "create_server", "run_on_stdio"]

_KEEP = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class FlowTool:
    """A flow as a tool of a server.

    Attributes:
        flow: a flow class, or a function that returns a new flow for each call.
        name: the name for clients; by default the name of ``flow``.
        description: the description for models; by default the docstring of ``flow``.
        input_schema: the JSON Schema of the arguments, which are the flow's inputs. By default, it has the fields of
            the flow's state, except ``id``. If the state is not a Pydantic model, any arguments are accepted.
    """

    flow: Callable[[], Flow[Any]] = field(kw_only=False)
    name: str = ""
    description: str = ""
    input_schema: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def as_offered(self) -> mcp_types.Tool:
        """Return the entry of this tool in the server's list of tools."""
        return mcp_types.Tool(
            name=self.tool_name,
            description=self.description or (getattr(self.flow, "__doc__", None) or "").strip() or None,
            input_schema={"type": "object", **(self.input_schema or _schema_of_state(self.flow()))},
        )

    @property
    def tool_name(self) -> str:
        return self.name or getattr(self.flow, "__name__", "flow")


def _schema_of_state(flow: Flow[Any]) -> dict[str, Any]:
    state = cast(object, flow.state)
    if not isinstance(state, BaseModel):
        return {}
    schema = type(state).model_json_schema()
    schema["properties"] = {name: each for name, each in schema.get("properties", {}).items() if name != "id"}
    # No argument is required, because the flow's initial state already has a value for each field.
    schema.pop("required", None)
    return schema


def create_server(
    name: str, *tools: FlowTool, runs: Runs | None = None, security: RequestStateSecurity | None = None
) -> Server[Any]:
    """Create a server whose tools are flows.

    Clients receive progress notifications: the starts of methods, agents and tools, the questions of the run, and what
    ``report_progress`` sends. If a client cancels a call, the run of the call is cancelled. If a run fails, the client
    receives the text of the error.

    Questions of a run go to the client's user if the client supports elicitation. If a question cannot be asked or is
    not answered, the client receives an error that quotes the question.

    Args:
        name: the name of the server.
        tools: the flows.
        runs: keeps the runs that wait for answers. Used only for clients with MCP 2026-07-28 or later. For such a
            client, a question ends the call. The client then calls again with the answers, and the waiting run is
            resumed. By default, this process keeps a waiting run for an hour.
        security: protects the request state: the id of the waiting run, which the client sends back with the answers.
            By default, the server creates a key for itself. Processes that share ``runs`` must share ``security``.

    Raises:
        ValueError: two tools have the same name.
    """
    flows = {each.tool_name: each for each in tools}
    if len(flows) < len(tools):
        names = [each.tool_name for each in tools]
        raise ValueError(f"two tools have one name; the names are {', '.join(names)}")
    offered = [each.as_offered() for each in tools]
    kept = Runs(keep=_KEEP) if runs is None else runs

    async def list_tools(
        context: ServerRequestContext[Any], page: mcp_types.PaginatedRequestParams | None
    ) -> mcp_types.ListToolsResult:
        return mcp_types.ListToolsResult(tools=offered)

    async def call_tool(
        context: ServerRequestContext[Any], call: mcp_types.CallToolRequestParams
    ) -> mcp_types.CallToolResult | mcp_types.InputRequiredResult:
        if call.name not in flows:
            return _report_error(f"unknown tool: {call.name!r}; there are: {', '.join(flows)}")
        try:
            flow = flows[call.name].flow()
            if is_version_at_least(context.protocol_version, "2026-07-28"):
                if runs is None:
                    await anyio.to_thread.run_sync(_forget_abandoned, kept)
                return await _run_between_calls(kept, flow, call, context)
            events = flow.events(call.arguments or {}).pipe(ops.answer_with(partial(_elicit, context)))
            outcome = await _run_flow(events, context)
            return _report_pending(outcome.pending) if isinstance(outcome, FlowPaused) else outcome
        except Exception as error:  # noqa: BLE001 - reported to the client's model
            return _report_error(describe(error))

    server = Server(name, on_list_tools=list_tools, on_call_tool=call_tool)
    server.middleware.append(RequestStateBoundary(security or RequestStateSecurity.ephemeral(), default_audience=name))
    return server


def run_on_stdio(server: Server[Any]) -> None:
    """Serve one client on standard input and output until it disconnects."""

    async def run() -> None:
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())

    anyio.run(run)


async def _run_flow(
    events: Observable[Event], context: ServerRequestContext[Any]
) -> mcp_types.CallToolResult | FlowPaused:
    result: Any = None
    paused: FlowPaused | None = None
    notes = 0
    async with AsyncExitStack() as stack:
        output = await stack.enter_async_context(events.pipe(ops.to_output()))
        async for event in output:
            note = None if isinstance(event, StreamChunk) else _describe(event)
            if note:
                notes += 1
                await context.session.report_progress(notes, None, encodable(note))
            if isinstance(event, FlowFinished | CrewFinished) and not event.origin.parent_span_id:
                result = event.result
            elif isinstance(event, FlowPaused):
                paused = event
    if paused is not None:
        return paused
    plain = to_plain_json(result)
    said: list[Any] = [] if result is None else [mcp_types.TextContent(type="text", text=encodable(as_text(result)))]
    return mcp_types.CallToolResult(
        content=said,
        structured_content=plain if isinstance(plain, dict) else None,
    )


async def _run_between_calls(
    runs: Runs, flow: Flow[Any], call: mcp_types.CallToolRequestParams, context: ServerRequestContext[Any]
) -> mcp_types.CallToolResult | mcp_types.InputRequiredResult:
    """Run a flow until the run ends or pauses for answers. Return the result, or the questions.

    When the client calls again with the answers, this function resumes the paused run.
    """
    in_thread = anyio.to_thread.run_sync  # the store may be a database, which would block the event loop
    after = -1
    if call.request_state is None:
        run = await runs.start_async(flow, call.arguments, when_unread="cancel")
    else:
        run = await in_thread(runs.__getitem__, call.request_state)
        after = (await in_thread(run.look_up)).last
        pending = await in_thread(run.pending)
        answers = _read_replies(pending, call.input_responses or {})
        if None in answers.values():
            await in_thread(runs.forget, run.id)
            return _report_pending([each for each in pending if answers[each.request_id] is None])
        await in_thread(run.resume, answers, flow)
    is_waiting = False
    try:
        outcome = await _run_flow(run.events(after), context)
        if not isinstance(outcome, FlowPaused):
            return outcome
        if not _can_ask(context):
            return _report_pending(outcome.pending)
        requests: mcp_types.InputRequests = {each.request_id: _make_elicitation(each) for each in outcome.pending}
        is_waiting = True
        return mcp_types.InputRequiredResult(input_requests=requests, request_state=run.id)
    finally:
        if not is_waiting:
            with anyio.CancelScope(shield=True):
                await in_thread(runs.forget, run.id)


def _forget_abandoned(runs: Runs) -> None:
    """Delete the runs that have been paused for longer than ``_KEEP``. ``Runs`` itself never deletes paused runs."""
    oldest = time.time() - _KEEP.total_seconds()
    for run in runs.list(status="paused"):
        with suppress(LookupError):  # raised if another call has deleted the run since list()
            ended_at = run.look_up().ended_at
            if ended_at is not None and ended_at < oldest:
                runs.forget(run.id)


def _read_replies(pending: Sequence[InputRequested], replies: mcp_types.InputResponses) -> dict[str, Any]:
    """Return the answers by ``request_id``. An answer is None if the user did not answer the question."""
    found = {each.request_id: (each, replies.get(each.request_id)) for each in pending}
    return {
        name: _read_reply(request, reply) if isinstance(reply, mcp_types.ElicitResult) else None
        for name, (request, reply) in found.items()
    }


def _can_ask(context: ServerRequestContext[Any]) -> bool:
    can = mcp_types.ClientCapabilities(elicitation=mcp_types.ElicitationCapability())
    return context.session.check_client_capability(can)


async def _elicit(context: ServerRequestContext[Any], request: InputRequested) -> Any:
    """Ask the client's user during the call, and return the answer.

    Return None if the client cannot ask, or if the user does not answer.
    """
    if not _can_ask(context):
        return None
    try:
        reply = await context.session.elicit_form(_question_of(request), _form_of(request), context.request_id)
    except NoBackChannelError:  # over HTTP without a stream, the server cannot send a question to the client
        return None
    return _read_reply(request, reply)


def _make_elicitation(request: InputRequested) -> mcp_types.ElicitRequest:
    params = mcp_types.ElicitRequestFormParams(message=_question_of(request), requested_schema=_form_of(request))
    return mcp_types.ElicitRequest(params=params)


def _read_reply(request: InputRequested, reply: mcp_types.ElicitResult) -> Any:
    given = reply.content or {}
    if request.kind == "approval" and reply.action != "cancel":
        is_approved = reply.action == "accept" and given.get("approved") is True
        return {"approved": is_approved, "reason": str(given.get("reason") or "")}
    if reply.action != "accept":
        return None
    return given.get("words") or given.get("answer") or "" if request.options else given.get("answer")


def _form_of(request: InputRequested) -> dict[str, Any]:
    if request.kind == "approval":
        return {"type": "object", "properties": _APPROVAL, "required": ["approved"]}
    answer: dict[str, Any] = {"type": "string", "title": "Answer"}
    if not request.options:
        return {"type": "object", "properties": {"answer": answer}, "required": ["answer"]}
    # A client accepts nothing but the values of an enum. But people may also answer in their own words.
    fields = {"answer": {**answer, "enum": list(request.options)}, "words": _WORDS}
    return {"type": "object", "properties": fields}


_APPROVAL: dict[str, Any] = {
    "approved": {"type": "boolean", "title": "Approve"},
    "reason": {"type": "string", "title": "Why not"},
}
"""The form fields of an approval. MCP allows no nested fields, so the form cannot offer to edit a tool's arguments."""


_WORDS = {"type": "string", "title": "Or in your own words"}


def _question_of(request: InputRequested) -> str:
    arguments = f"\n{as_text(dict(request.arguments))}" if request.arguments else ""
    return encodable(f"{request.message}{arguments}")


def _describe(event: Event) -> str | None:
    match event:
        case MethodStarted(origin=origin):
            return f"{origin.flow_method} begins"
        case AgentStarted(origin=origin):
            return f"{origin.agent_role} works on: {origin.task_name}"
        case ToolStarted(tool_name=name):
            return f"{name} is called"
        case ToolProgress(progress=progress, total=total, message=message):
            return f"{message} ({progress:g} of {total:g})" if total else message or f"{progress:g}"
        case InputRequested(message=message):
            return f"waits for an answer: {message}"
        case _:
            return None


def _report_pending(pending: Sequence[InputRequested]) -> mcp_types.CallToolResult:
    return _report_error("the run waits for a person: " + "; ".join(each.message for each in pending))


def _report_error(text: str) -> mcp_types.CallToolResult:
    return mcp_types.CallToolResult(content=[mcp_types.TextContent(type="text", text=encodable(text))], is_error=True)
