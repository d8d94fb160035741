"""Streams the execution of LLM flows, crews and calls, as reactive streams."""

__all__: list[str] = []
