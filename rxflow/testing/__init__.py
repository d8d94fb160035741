"""What users test their flows with: virtual time, marbles, scripted models, probes and conformance suites."""

import typing

from rxflow import _lazy

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

# The plugin lies in this package, and is loaded where nobody asks for these.
if typing.TYPE_CHECKING:
    from rxflow.testing.cassettes import cassette
    from rxflow.testing.conformance.check import check_operator, check_source
    from rxflow.testing.conformance.harness import ConformanceError
    from rxflow.testing.diagrams import MarbleError, MarbleSyntaxError
    from rxflow.testing.marbles import Marbles
    from rxflow.testing.probes import Probe, probe
    from rxflow.testing.scripted import ScriptedLLM, UnscriptedRequest, thinking, tool_call, turn
    from rxflow.testing.virtual_clock import VirtualClock
    from rxflow.testing.virtual_time import Deadlock, ProviderInVirtualTime, RealSocketInVirtualTime
else:
    __getattr__, __dir__ = _lazy.names(
        __name__,
        {
            "ConformanceError": "rxflow.testing.conformance.harness",
            "Deadlock": "rxflow.testing.virtual_time",
            "MarbleError": "rxflow.testing.diagrams",
            "MarbleSyntaxError": "rxflow.testing.diagrams",
            "Marbles": "rxflow.testing.marbles",
            "Probe": "rxflow.testing.probes",
            "ProviderInVirtualTime": "rxflow.testing.virtual_time",
            "RealSocketInVirtualTime": "rxflow.testing.virtual_time",
            "ScriptedLLM": "rxflow.testing.scripted",
            "UnscriptedRequest": "rxflow.testing.scripted",
            "VirtualClock": "rxflow.testing.virtual_clock",
            "cassette": "rxflow.testing.cassettes",
            "check_operator": "rxflow.testing.conformance.check",
            "check_source": "rxflow.testing.conformance.check",
            "probe": "rxflow.testing.probes",
            "thinking": "rxflow.testing.scripted",
            "tool_call": "rxflow.testing.scripted",
            "turn": "rxflow.testing.scripted",
        },
    )
