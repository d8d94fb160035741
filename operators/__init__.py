"""The operators of rxflow. Import operators from ``rxflow.operators``.

Each module of this package has one operator, or a few related operators.
"""

from rxflow._streaming import ConsoleProvider, Inbox
from rxflow.operators._accumulate import accumulate
from rxflow.operators._answer_with import answer_with
from rxflow.operators._by import by_agent, by_method, by_task
from rxflow.operators._coalesce import coalesce
from rxflow.operators._core import StreamTimeout
from rxflow.operators._fallback_to import fallback_to
from rxflow.operators._first_chunk_timeout import FirstChunkTimeout, first_chunk_timeout
from rxflow.operators._frames import frames
from rxflow.operators._from_cassette import CassetteError, RecordedError, from_cassette
from rxflow.operators._from_log import from_log
from rxflow.operators._heartbeat import heartbeat
from rxflow.operators._hold_back import GuardStopped, Release, Replace, Stop, Verdict, hold_back
from rxflow.operators._idle_timeout import IdleTimeout, idle_timeout
from rxflow.operators._in_graph_order import in_graph_order
from rxflow.operators._interleave_fairly import interleave_fairly
from rxflow.operators._limit import CostLimitExceeded, LimitExceeded, TokenLimitExceeded, limit_cost, limit_tokens
from rxflow.operators._lines import lines
from rxflow.operators._log_to import log_to
from rxflow.operators._only import only_agent, only_method, only_task
from rxflow.operators._overflow import SlowReaderError, overflow
from rxflow.operators._partial_json import partial_json
from rxflow.operators._race import race
from rxflow.operators._reasoning import reasoning
from rxflow.operators._record import record
from rxflow.operators._redact import redact
from rxflow.operators._retry_stream import retry_stream
from rxflow.operators._sentences import sentences
from rxflow.operators._share_log import share_log
from rxflow.operators._smooth import smooth
from rxflow.operators._stats import Stats, stats
from rxflow.operators._stop_at import stop_at
from rxflow.operators._text import text
from rxflow.operators._to_output import to_output
from rxflow.operators._tool_calls import tool_arguments, tool_call_deltas, tool_calls
from rxflow.operators._usage import usage
from rxflow.operators._words import words

if __name__ != "rxflow.operators":  # an editable install lets `import operators` find this folder
    raise ModuleNotFoundError(f"No module named {__name__!r}; import rxflow.operators", name=__name__)

__all__ = [
    "CassetteError",
    "ConsoleProvider",
    "CostLimitExceeded",
    "FirstChunkTimeout",
    "GuardStopped",
    "IdleTimeout",
    "Inbox",
    "LimitExceeded",
    "RecordedError",
    "Release",
    "Replace",
    "SlowReaderError",
    "Stats",
    "Stop",
    "StreamTimeout",
    "TokenLimitExceeded",
    "Verdict",
    "accumulate",
    "answer_with",
    "by_agent",
    "by_method",
    "by_task",
    "coalesce",
    "fallback_to",
    "first_chunk_timeout",
    "frames",
    "from_cassette",
    "from_log",
    "heartbeat",
    "hold_back",
    "idle_timeout",
    "in_graph_order",
    "interleave_fairly",
    "limit_cost",
    "limit_tokens",
    "lines",
    "log_to",
    "only_agent",
    "only_method",
    "only_task",
    "overflow",
    "partial_json",
    "race",
    "reasoning",
    "record",
    "redact",
    "retry_stream",
    "sentences",
    "share_log",
    "smooth",
    "stats",
    "stop_at",
    "text",
    "to_output",
    "tool_arguments",
    "tool_call_deltas",
    "tool_calls",
    "usage",
    "words",
]
