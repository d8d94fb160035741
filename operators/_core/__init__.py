"""Building blocks of the operators.

Operators import them from this package. The modules of the package import each other directly, and the stores of runs
import the modules for logs, such as :mod:`~rxflow.operators._core.run_log`, directly too.
"""

from rxflow.operators._core.calls import CallQueues, CallTracker, OpenCall, OpenSpans, QuestionTracker, read_calls
from rxflow.operators._core.cassettes import (
    HEADER,
    Cassette,
    CassetteError,
    encode_end,
    encode_item,
    read_cassette,
)
from rxflow.operators._core.checks import (
    AnyPath,
    ErrorFilter,
    check_choice,
    check_count,
    check_model,
    check_path,
    check_positive,
    compile_error_filter,
    is_number,
    to_seconds,
)
from rxflow.operators._core.growing_json import GrowingJson, parse, read_object
from rxflow.operators._core.in_run import Adding, also, only, reselect, select, through
from rxflow.operators._core.items import (
    describe,
    get_origin,
    get_span_id,
    get_speaker,
    get_text,
    is_content,
    replace_text,
)
from rxflow.operators._core.lanes import AGENT, METHOD, TASK, Identified, Lane, divide_by, keep_only
from rxflow.operators._core.recovery import Attempts, Join, add_context, create_join, report_error
from rxflow.operators._core.text import (
    Characters,
    PartialPattern,
    TextPattern,
    Voice,
    Voices,
    compile_grapheme,
    find_end_after,
    load_regex,
    shape_text,
)
from rxflow.operators._core.timing import SilenceWatch, StreamTimeout, create_timed, find_clock, start_stopwatch

__all__ = [
    "AGENT",
    "HEADER",
    "METHOD",
    "TASK",
    "Adding",
    "AnyPath",
    "Attempts",
    "CallQueues",
    "CallTracker",
    "Cassette",
    "CassetteError",
    "Characters",
    "ErrorFilter",
    "GrowingJson",
    "Identified",
    "Join",
    "Lane",
    "OpenCall",
    "OpenSpans",
    "PartialPattern",
    "QuestionTracker",
    "SilenceWatch",
    "StreamTimeout",
    "TextPattern",
    "Voice",
    "Voices",
    "add_context",
    "also",
    "check_choice",
    "check_count",
    "check_model",
    "check_path",
    "check_positive",
    "compile_error_filter",
    "compile_grapheme",
    "create_join",
    "create_timed",
    "describe",
    "divide_by",
    "encode_end",
    "encode_item",
    "find_clock",
    "find_end_after",
    "get_origin",
    "get_span_id",
    "get_speaker",
    "get_text",
    "is_content",
    "is_number",
    "keep_only",
    "load_regex",
    "only",
    "parse",
    "read_calls",
    "read_cassette",
    "read_object",
    "replace_text",
    "report_error",
    "reselect",
    "select",
    "shape_text",
    "start_stopwatch",
    "through",
    "to_seconds",
]
