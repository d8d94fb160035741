"""Tools for testing flows: virtual time, marbles, scripted models, probes and conformance suites."""

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
    "assert_nothing_is_left",
    "cassette",
    "check_operator",
    "check_source",
    "probe",
    "thinking",
    "tool_call",
    "turn",
]

# These names are imported lazily. The pytest plugin is in this package, so pytest imports the package for all tests,
# even for tests that use none of the names.
if typing.TYPE_CHECKING:
    from rxflow.testing._conformance.check import check_operator, check_source
    from rxflow.testing._conformance.harness import ConformanceError
    from rxflow.testing._diagrams import MarbleError, MarbleSyntaxError
    from rxflow.testing._drawing import cassette
    from rxflow.testing._marbles import Marbles
    from rxflow.testing._probes import Probe, probe
    from rxflow.testing._scripted import ScriptedLLM, UnscriptedRequest, thinking, tool_call, turn
    from rxflow.testing._virtual_clock import VirtualClock
    from rxflow.testing._virtual_time import Deadlock, ProviderInVirtualTime, RealSocketInVirtualTime
    from rxflow.testing.leaks import assert_nothing_is_left
else:
    __getattr__, __dir__ = _lazy.create_lookup(
        __name__,
        {
            "ConformanceError": "rxflow.testing._conformance.harness",
            "Deadlock": "rxflow.testing._virtual_time",
            "MarbleError": "rxflow.testing._diagrams",
            "MarbleSyntaxError": "rxflow.testing._diagrams",
            "Marbles": "rxflow.testing._marbles",
            "Probe": "rxflow.testing._probes",
            "ProviderInVirtualTime": "rxflow.testing._virtual_time",
            "RealSocketInVirtualTime": "rxflow.testing._virtual_time",
            "ScriptedLLM": "rxflow.testing._scripted",
            "UnscriptedRequest": "rxflow.testing._scripted",
            "VirtualClock": "rxflow.testing._virtual_clock",
            "assert_nothing_is_left": "rxflow.testing.leaks",
            "cassette": "rxflow.testing._drawing",
            "check_operator": "rxflow.testing._conformance.check",
            "check_source": "rxflow.testing._conformance.check",
            "probe": "rxflow.testing._probes",
            "thinking": "rxflow.testing._scripted",
            "tool_call": "rxflow.testing._scripted",
            "turn": "rxflow.testing._scripted",
        },
    )
