"""The basis of streams: Observables of coroutines, the start of a run, logs, and outputs.

The floors above import from this package. The modules of the package import each other directly.
"""

from rxflow._streaming.border import Border, current_border, find_stamp
from rxflow._streaming.bridge import (
    WAITS,
    Unanswered,
    all_of,
    announce_failure,
    from_async,
    from_coroutine,
    merge_patiently,
    on_loop,
    replace_stray_cancellation,
)
from rxflow._streaming.console import ConsoleProvider, has_console, log_events
from rxflow._streaming.emitter import Emitter, ambient, current_emitter, emit, in_thread, report_progress
from rxflow._streaming.frames import AsyncStreamSession, Framing, StreamSession
from rxflow._streaming.journal import Done, Journal, NotResumable, Step, drop_retracted, is_repeated, retract_all
from rxflow._streaming.kickoff import Last, await_blocking, run_async, run_blocking
from rxflow._streaming.log import Log, LogReader
from rxflow._streaming.loop_thread import LoopThread
from rxflow._streaming.observable import Behind, EventStream, chunks, everything, past
from rxflow._streaming.output import (
    AgentStreamingOutput,
    CrewStreamingOutput,
    FlowStreamingOutput,
    PipelineOutput,
    read_out,
)
from rxflow._streaming.questions import (
    Inbox,
    Question,
    Who,
    answerer_of,
    ask,
    asking,
    check_answer,
    end_with_pause,
    find_answer,
    provided_by,
)
from rxflow._streaming.scope import (
    DEFAULT_STOP_REASON,
    Answerer,
    Cleanup,
    Holder,
    Owned,
    RunHandle,
    RunPart,
    Scope,
    UsageLedger,
    connect,
    stopping,
)

__all__ = [
    "DEFAULT_STOP_REASON",
    "WAITS",
    "AgentStreamingOutput",
    "Answerer",
    "AsyncStreamSession",
    "Behind",
    "Border",
    "Cleanup",
    "ConsoleProvider",
    "CrewStreamingOutput",
    "Done",
    "Emitter",
    "EventStream",
    "FlowStreamingOutput",
    "Framing",
    "Holder",
    "Inbox",
    "Journal",
    "Last",
    "Log",
    "LogReader",
    "LoopThread",
    "NotResumable",
    "Owned",
    "PipelineOutput",
    "Question",
    "RunHandle",
    "RunPart",
    "Scope",
    "Step",
    "StreamSession",
    "Unanswered",
    "UsageLedger",
    "Who",
    "all_of",
    "ambient",
    "announce_failure",
    "answerer_of",
    "ask",
    "asking",
    "await_blocking",
    "check_answer",
    "chunks",
    "connect",
    "current_border",
    "current_emitter",
    "drop_retracted",
    "emit",
    "end_with_pause",
    "everything",
    "find_answer",
    "find_stamp",
    "from_async",
    "from_coroutine",
    "has_console",
    "in_thread",
    "is_repeated",
    "log_events",
    "merge_patiently",
    "on_loop",
    "past",
    "provided_by",
    "read_out",
    "replace_stray_cancellation",
    "report_progress",
    "retract_all",
    "run_async",
    "run_blocking",
    "stopping",
]
