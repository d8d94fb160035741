"""Flows: ``Flow``, and the decorators that define its graph."""

from rxflow.flow._graph import and_, listen, or_, router, start
from rxflow.flow._people import human_feedback
from rxflow.flow._state import FlowState
from rxflow.flow.flow import Flow
from rxflow.flow.persistence import persist
from rxflow.types import HumanFeedbackResult

__all__ = [
    "Flow",
    "FlowState",
    "HumanFeedbackResult",
    "and_",
    "human_feedback",
    "listen",
    "or_",
    "persist",
    "router",
    "start",
]
