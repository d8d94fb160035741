"""The operators of rxflow, one a file: import them from ``rxflow.operators``."""

__all__: list[str] = []
