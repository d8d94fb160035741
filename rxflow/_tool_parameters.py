"""The parameters of a tool's function: their names, their schema for the LLM, and their values in a call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any, Self, cast, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo
from pydantic_core import from_json


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of a tool's function.

    ``required`` holds the names of the parameters without a default. A ``Field(…)`` does not count as a default.
    ``takes_others`` is True if the function has ``**kwargs``. Pydantic does not allow some names for fields, for
    example ``_id`` and ``copy``. For a parameter with such a name, the field in the generated schema gets another name.
    ``fields`` maps the names of these fields to the names of their parameters.
    """

    names: tuple[str, ...]
    required: frozenset[str]
    takes_others: bool
    fields: Mapping[str, str]

    @classmethod
    def of(cls, function: Callable[..., Any], tool: str) -> Self:
        """Return the parameters in the signature of ``function``. ``tool`` is the tool's name, for error messages.

        Raises:
            TypeError: a parameter is positional-only, or ``function`` is a method that is not bound to an object.
        """
        parameters = inspect.signature(function).parameters.values()
        if _is_unbound(function, list(parameters)):
            raise TypeError(
                f"the tool {tool!r} is a method, and models cannot give it a {next(iter(parameters)).name}; "
                f"make the tool of a bound method: tool(thing.{getattr(function, '__name__', tool)})"
            )
        for each in parameters:
            if each.kind is each.POSITIONAL_ONLY:
                raise TypeError(
                    f"the parameter {each.name!r} of the tool {tool!r} is positional-only, and models give arguments "
                    "by name; remove the / from its signature"
                )
        named = [each for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
        names = tuple(each.name for each in named)
        return cls(
            names=names,
            required=frozenset(each.name for each in named if _default_of(each) is inspect.Parameter.empty),
            takes_others=any(each.kind is each.VAR_KEYWORD for each in parameters),
            fields=_rename(names),
        )

    def make_schema(self, function: Callable[..., Any], name: str) -> type[BaseModel]:
        """Return a new pydantic model of the arguments. ``name`` becomes the name of the model."""
        hints = _read_hints(function)
        signature = inspect.signature(function).parameters
        renamed = {name: field for field, name in self.fields.items()}
        fields: dict[str, Any] = {}
        for each in self.names:
            hint, default = hints.get(each, Any), signature[each].default
            field = renamed.get(each, each)
            if field != each:
                hint = Annotated[hint, Field(alias=each, title=each.strip("_").replace("_", " ").title())]
            fields[field] = (hint, ... if default is inspect.Parameter.empty else default)
        config = ConfigDict(extra="allow") if self.takes_others else None
        return create_model(name, __config__=config, **fields)

    def check_schema(self, schema: type[BaseModel], tool: str) -> None:
        """Raise TypeError if ``schema`` does not match the parameters.

        Each required parameter needs a field, unless ``schema`` allows extra fields. Each field needs a parameter,
        unless the function has ``**kwargs``.
        """
        fields = set(schema.model_fields)
        if (missing := sorted(self.required - fields)) and schema.model_config.get("extra") != "allow":
            raise TypeError(f"the tool {tool!r} needs {', '.join(missing)}, which its args_schema does not have")
        if not self.takes_others and (unknown := sorted(fields - set(self.names))):
            raise TypeError(f"the args_schema of the tool {tool!r} has {', '.join(unknown)}, which it does not take")

    def arguments_of(self, model: BaseModel) -> dict[str, Any]:
        """Return the arguments in ``model`` as a dict from parameter names to values.

        Nested models stay models. If an argument was not given, and the function has a default for it, the dict leaves
        the argument out. If the function has no default for it, the dict has the default of the schema.
        """
        named = {field: self.fields.get(field, field) for field in type(model).model_fields}
        arguments = {
            name: getattr(model, field)
            for field, name in named.items()
            if field in model.model_fields_set or name in self.required or name not in self.names
        }
        others = model.model_extra or {}
        return arguments | {name: value for name, value in others.items() if self.takes_others or name in self.names}


def _read_hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the types of the parameters.

    The return annotation is not evaluated, because its names may exist only for type checkers.
    """

    @wraps(function)
    def without_return() -> None: ...

    annotations: Mapping[str, Any] = getattr(function, "__annotations__", {})
    without_return.__annotations__ = {name: each for name, each in annotations.items() if name != "return"}
    return get_type_hints(without_return, include_extras=True)


def _is_unbound(function: Callable[..., Any], parameters: list[inspect.Parameter]) -> bool:
    """Return whether ``function`` was defined in a class, and has ``self`` or ``cls`` as its first parameter."""
    outer, _, _ = getattr(function, "__qualname__", "").rpartition(".")
    in_class = bool(outer) and not outer.endswith("<locals>")
    return in_class and inspect.isfunction(function) and bool(parameters) and parameters[0].name in ("self", "cls")


def _default_of(parameter: inspect.Parameter) -> Any:
    """Return the default of a parameter; ``Parameter.empty`` if there is none, or if the default is a ``Field(…)``.

    A ``Field(…)`` is for the schema. The function cannot use it as a value.
    """
    return inspect.Parameter.empty if isinstance(parameter.default, FieldInfo) else parameter.default


def _rename(parameters: tuple[str, ...]) -> dict[str, str]:
    """Return new names for the fields of the parameters whose own names pydantic does not allow for fields.

    The keys are the new names, and the values are the names of the parameters. A new name is similar to the old one. No
    parameter and no other field has this name.
    """
    fields: dict[str, str] = {}
    for parameter in parameters:
        if parameter.startswith("_") or hasattr(BaseModel, parameter):
            field = parameter.strip("_") + "_"
            taken = {*parameters, *fields, "_"}
            while field in taken or hasattr(BaseModel, field) or not field.isidentifier():
                field = f"p{field}"
            fields[field] = parameter
    return fields


def as_arguments(given: Mapping[str, Any] | str) -> dict[str, Any]:
    """Return the arguments as a dict. Raises ValueError if ``given`` is neither a mapping nor a JSON object as text."""
    arguments: Any = from_json(given) if isinstance(given, str) else given
    if not isinstance(arguments, Mapping):
        raise ValueError(f"the arguments of a tool are a mapping or the text of a JSON object: {given!r}")
    return {**cast(Mapping[str, Any], arguments)}
