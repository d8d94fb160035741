"""How a crew goes about its tasks."""

from enum import StrEnum


class Process(StrEnum):
    """Sequential: each task by its own agent. Hierarchical: a manager hands the tasks out."""

    sequential = "sequential"
    hierarchical = "hierarchical"
