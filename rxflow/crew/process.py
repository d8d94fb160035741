"""How a crew goes about its tasks."""

from enum import Enum


class Process(str, Enum):
    """Sequential: each task by its own agent. Hierarchical: a manager hands the tasks out."""

    sequential = "sequential"
    hierarchical = "hierarchical"
