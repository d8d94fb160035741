"""Flows: ``Flow``, and the decorators that make its graph."""

from rxflow.flow.conditions import and_, or_
from rxflow.flow.decorators import listen, router, start
from rxflow.flow.flow import Flow
from rxflow.flow.state import FlowState

__all__ = ["Flow", "FlowState", "and_", "listen", "or_", "router", "start"]
