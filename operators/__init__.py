"""The operators of rxflow, one a file: import them from ``rxflow.operators``."""

from rxflow.operators._text import text
from rxflow.operators._words import words

__all__ = ["text", "words"]
