"""Answers that fit a pydantic model: asking for them, and reading them."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel

from rxflow.json_text import json_in

M = TypeVar("M", bound=BaseModel)


def response_format_for(model: type[BaseModel]) -> dict[str, Any]:
    """The ``response_format`` parameter of OpenAI's chat API for ``model``."""
    return {
        "type": "json_schema",
        "json_schema": {"name": model.__name__, "schema": model.model_json_schema()},
    }


def instructions_for(model: type[BaseModel]) -> str:
    """The same in words, for models that do not know the parameter."""
    schema = json.dumps(model.model_json_schema())
    return f"Answer with one JSON object and nothing else. It must fit this JSON schema:\n{schema}"


def parse_as(model: type[M], text: str) -> M:
    """Read an answer: bare JSON, JSON in a fence, or JSON with words around it.

    Raises:
        ValidationError: pydantic's, a ValueError: the text holds no JSON that fits.
    """
    return model.model_validate_json(json_in(text))
