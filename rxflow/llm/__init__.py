"""Models: ``LLM``, and the sources behind it."""

from rxflow.llm.model import LLM

__all__ = ["LLM"]
