"""What users test their flows with: virtual time, marbles, scripted models, probes and conformance suites."""

from rxflow.testing.cassettes import cassette
from rxflow.testing.conformance import ConformanceError, check_operator, check_source
from rxflow.testing.diagrams import MarbleSyntaxError
from rxflow.testing.marbles import Marbles
from rxflow.testing.probes import Probe, probe
from rxflow.testing.refusals import ProviderInVirtualTime, RealSocketInVirtualTime
from rxflow.testing.scripted_llm import ScriptedLLM, UnscriptedRequest
from rxflow.testing.timeline import MarbleError
from rxflow.testing.turns import thinking, tool_call, turn
from rxflow.testing.virtual_clock import VirtualClock
from rxflow.testing.virtual_loop import Deadlock

__all__ = [
    "ConformanceError",
    "Deadlock",
    "MarbleError",
    "MarbleSyntaxError",
    "Marbles",
    "Probe",
    "ProviderInVirtualTime",
    "RealSocketInVirtualTime",
    "ScriptedLLM",
    "UnscriptedRequest",
    "VirtualClock",
    "cassette",
    "check_operator",
    "check_source",
    "probe",
    "thinking",
    "tool_call",
    "turn",
]
