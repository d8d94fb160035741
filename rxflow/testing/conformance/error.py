"""What a conformance suite raises."""

from __future__ import annotations


class ConformanceError(AssertionError):
    """An operator or a source breaks a rule: ``rule`` says which, ``seen`` what it did."""

    def __init__(self, subject: str, rule: str, seen: str) -> None:
        super().__init__(f"{subject} breaks the rule “{rule}”: {seen}")
        self.rule = rule
        self.seen = seen
