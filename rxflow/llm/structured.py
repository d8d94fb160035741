"""Asking for answers that fit a pydantic model. :func:`rxflow.json_text.read_json` reads them."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, RootModel

from rxflow.tools import function_name


def response_format_for(model: type[BaseModel]) -> dict[str, Any]:
    """The ``response_format`` parameter of OpenAI's chat API for ``model``."""
    return {
        "type": "json_schema",
        "json_schema": {"name": function_name(model.__name__), "schema": model.model_json_schema()},
    }


def has_object_root(model: type[BaseModel]) -> bool:
    """Whether ``model`` is read from an object. OpenAI refuses a ``response_format`` for lists and other values."""
    return not issubclass(model, RootModel) or model.model_json_schema().get("type") == "object"


def instructions_for(model: type[BaseModel]) -> str:
    """The same in words, for models that do not know the parameter."""
    schema = json.dumps(model.model_json_schema())
    kind = "object" if has_object_root(model) else "value"
    return f"Answer with one JSON {kind} and nothing else. It must fit this JSON schema:\n{schema}"
