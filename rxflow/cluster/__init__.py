"""Flows and crews on the machines of a Ray cluster, with the flow's code unchanged."""

from typing import TYPE_CHECKING

from rxflow import _lazy
from rxflow.cluster._actor import CodeMismatchError, WorkerLost, WorkerStartError

if TYPE_CHECKING:
    from rxflow.cluster.ray import OnRay, Ray, close_workers, on_ray

_NAMES = ("OnRay", "Ray", "close_workers", "on_ray")
__getattr__, __dir__ = _lazy.create_lookup(__name__, dict.fromkeys(_NAMES, "rxflow.cluster.ray"))

__all__ = ["CodeMismatchError", "OnRay", "Ray", "WorkerLost", "WorkerStartError", "close_workers", "on_ray"]
