"""Flows: ``Flow``, and the decorators that make its graph."""

from rxflow.flow.conditions import and_, or_
from rxflow.flow.decorators import listen, router, start
from rxflow.flow.flow import Flow

__all__ = ["Flow", "and_", "listen", "or_", "router", "start"]
