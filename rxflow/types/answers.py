"""Answers of people to a run's questions, and the error that ``result`` raises while answers are missing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, Field, model_validator
from pydantic_core import from_json

from rxflow.types.events import InputRequested

_YES = "(?:y|yes|yeah|yep|ok|okay|sure|approved?|true|go ahead|do it)"
_NO = "(?:n|no|nope|deny|denied|reject|rejected|false)"
_GAP = r"[\s,:;.!\u2013\u2014]+"
_APPROVAL = re.compile(rf"(?i)(?:please{_GAP})?{_YES}(?:{_GAP}(?:{_YES}|please|thanks|thank you))*(?:{_GAP})?")
# Matches JSON, perhaps with a mistake. A text such as "{only if cheap}" is a reason.
_OBJECT = re.compile(r"""\{\s*(?:["'}]|\w+\s*:)""")
_REFUSAL = re.compile(rf"(?is){_NO}(?:$|{_GAP}(?P<reason>.*))")


class Approval(BaseModel):
    """The answer to "may this tool be called?".

    Instead of this object, an answer may also be True or False, or a text:

    - "yes", "ok", "go ahead" and the like approve the call, also with "please" or "thanks".
    - A text that is a JSON object approves the call with the arguments in the object.
    - Any other text refuses the call, even "yes, but only 3". The text becomes the ``reason``, without a "no" at its
      beginning.

    Attributes:
        approved: whether the tool may be called.
        reason: why the call is refused. The model reads this text.
        arguments: the arguments to use instead of the model's; None keeps the model's.
    """

    approved: bool
    reason: str = ""
    arguments: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: Any) -> Any:
        if isinstance(given, bool):
            return {"approved": given}
        if not isinstance(given, str):
            return given
        text = given.strip()
        if _OBJECT.match(text):
            return {"approved": True, "arguments": from_json(text)}
        if _APPROVAL.fullmatch(text):
            return {"approved": True}
        refusal = _REFUSAL.fullmatch(text)
        return {"approved": False, "reason": text if refusal is None else refusal["reason"] or ""}

    @classmethod
    def schema_for(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the JSON Schema of an answer. ``arguments`` is the JSON Schema of the tool's arguments."""
        schema = cls.model_json_schema()
        schema["properties"]["arguments"] = {"anyOf": [dict(arguments), {"type": "null"}], "default": None}
        return {"anyOf": [schema, {"type": "boolean"}, {"type": "string"}]}


class HumanFeedbackResult(BaseModel):
    """A person's feedback on the result of a method with ``@human_feedback``.

    Attributes:
        output: the method's result, which was shown to the person.
        feedback: what the person wrote; may be empty.
        outcome: the label in ``emit`` that the feedback selected; None if ``emit`` was not given.
    """

    output: Any = None
    feedback: str = ""
    outcome: str | None = None
    timestamp: datetime = Field(default_factory=datetime.now)
    method_name: str = ""
    metadata: dict[str, Any] = Field(default_factory=dict[str, Any])


@dataclass
class InputResponse:
    """An answer that a provider's ``request_input`` may return instead of a plain text.

    rxflow uses only ``text``. If ``text`` is None, there is no input.
    """

    text: str | None
    metadata: dict[str, Any] | None = None


class HumanFeedbackPending(Exception):
    """Raised by a provider's ``request_feedback`` if the answer will come later. The run is paused until then."""

    def __init__(
        self, context: object = None, callback_info: Mapping[str, Any] | None = None, message: str | None = None
    ) -> None:
        super().__init__(message or "the feedback will come later")
        self.context = context
        self.callback_info = dict(callback_info or {})


class RunPaused(RuntimeError):
    """A run has no result yet, because it waits for answers. ``pending`` holds the open questions."""

    def __init__(self, pending: tuple[InputRequested, ...]) -> None:
        asked = "; ".join(f"{each.request_id}: {each.message!r}" for each in pending)
        super().__init__(f"the run is paused until someone answers {asked}")
        self.pending = pending

    def __reduce__(self) -> tuple[type[Self], tuple[tuple[InputRequested, ...]]]:
        return type(self), (self.pending,)
