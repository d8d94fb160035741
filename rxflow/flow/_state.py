"""The state of a flow: a dict or a pydantic model, with an ``id``."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, cast
from uuid import uuid4

from pydantic import AliasChoices, BaseModel, Field, ValidationError, create_model
from pydantic.fields import FieldInfo, ModelPrivateAttr
from pydantic_core import to_jsonable_python

from rxflow._copies import copy_values
from rxflow._options import TRIGGER_PAYLOAD
from rxflow._text import in_words

State = dict[str, Any] | BaseModel

_MAX_DEPTH = 200
"""How many levels of containers are copied and shown. Python cannot recurse into much more."""


class FlowState(BaseModel):
    """A base class for states. It declares the ``id`` that every state has."""

    id: str = Field(default_factory=lambda: str(uuid4()))


def create_state(given: object, where: str) -> State:
    """Create the initial state from ``given``: a model class, an instance of one, or a dict.

    None and the class ``dict`` mean an empty dict. If the id is missing or empty, a new id is set.

    Raises:
        TypeError: ``given`` is none of these.
        ValueError: a field of the model class, other than ``id``, has no default. Or the model does not accept its own
            defaults, or does not accept a text as a required ``id``.
    """
    state = _create_state(given, where)
    try:
        return state if read_id(state) else give_new_id(state)
    except ValueError:  # the state has no id until the inputs have one
        return state


def _create_state(given: object, where: str) -> State:
    if given is None or given is dict:
        return {"id": str(uuid4())}
    if isinstance(given, dict):
        return {"id": str(uuid4())} | copy.deepcopy(cast(dict[str, Any], given))
    if isinstance(given, BaseModel):
        # Make a copy, so that runs with the same initial instance do not share its lists.
        own = given.model_copy(deep=True)
        return own if "id" in type(given).model_fields else _remake(own, dict(own), _add_id(type(given)))
    if isinstance(given, type) and issubclass(given, BaseModel):
        required = [name for name, field in given.model_fields.items() if field.is_required() and name != "id"]
        if required:
            raise ValueError(
                f"{where}: each field of the state {given.__name__} needs a default; missing: {', '.join(required)}"
            )
        # The id is passed by the name of its field, which may have an alias.
        return given.model_validate({"id": str(uuid4())}, by_name=True) if _needs_id(given) else _add_id(given)()
    raise TypeError(f"{where}: initial_state must be a pydantic model, a dict, or an instance of one; got {given!r}")


def merge_inputs(state: State, inputs: Mapping[str, Any]) -> State:
    """Return ``state`` with ``inputs`` merged in. A model is validated as a whole, and keeps its private attributes.

    A model ignores an input whose name is neither the name nor an alias of a field, unless the model has
    ``extra="allow"``. An AliasPath does not count as an alias. If the id in ``inputs`` is None, the state keeps its own
    id.

    Raises:
        ValueError: ``inputs`` do not fit the model.
        TypeError: ``inputs`` is not a mapping.
    """
    if not isinstance(inputs, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"inputs must be a dict or another mapping of names to values; got {inputs!r}")
    id_names = _find_id_names(state)
    inputs = {name: value for name, value in inputs.items() if name not in id_names or value is not None}
    if not inputs:
        return state
    if isinstance(state, dict):
        return state | inputs
    model = type(state)
    names = {alias: name for name, field in model.model_fields.items() for alias in _iterate_aliases(field)}
    named = {names.get(key, key): value for key, value in inputs.items()}
    keeps_all = model.model_config.get("extra") == "allow"
    known = {name: value for name, value in named.items() if keeps_all or name in model.model_fields}
    try:
        # Use dict(state) instead of state.model_dump(), so that nested models and objects keep their types.
        return _remake(state, {**dict(state), **known}, model)
    except ValidationError as error:
        raise ValueError(f"Invalid inputs for structured state: {error}") from error


def has_id(state: State, inputs: Mapping[str, Any]) -> bool:
    """Return whether ``inputs`` have an id for ``state``, under its name or an alias."""
    return any(inputs.get(name) is not None for name in _find_id_names(state))


def give_new_id(state: State) -> State:
    """Return ``state`` with a new id.

    Raises:
        ValueError: the model does not accept a text as its id, for example because the field is an int.
    """
    own = {**dict(state), "id": str(uuid4())}
    if isinstance(state, dict):
        return own
    try:
        return _remake(state, own, type(state))
    except ValidationError as error:
        name = type(state).__name__
        raise ValueError(f"a new id cannot be made for {name}: its id is not a text; pass it in the inputs") from error


def require_known(state: object, inputs: Mapping[str, Any]) -> None:
    """Raise ValueError if ``state`` is a model that has no field for one of ``inputs``.

    The id and the trigger payload need no field. A model with ``extra="allow"`` accepts all inputs.

    This check is for inputs that a person typed. There, an unknown name is a mistake. Inputs from a program are not
    checked, because a program may pass more than a state needs.
    """
    if not isinstance(state, BaseModel) or type(state).model_config.get("extra") == "allow":
        return
    fields = type(state).model_fields
    shown = {*fields, *(alias for field in fields.values() for alias in _iterate_aliases(field))} - {"id"}
    for name in inputs:
        if name not in shown and name not in ("id", TRIGGER_PAYLOAD):
            close = get_close_matches(name, shown, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(sorted(shown))}"
            raise ValueError(f"the state {type(state).__name__} has no field {name!r}; {hint}")


def _iterate_aliases(field: FieldInfo) -> Iterator[str]:
    """Yield the aliases of ``field`` that are strings. An AliasPath is left out."""
    alias = field.validation_alias or field.alias
    for each in alias.choices if isinstance(alias, AliasChoices) else (alias,):
        if isinstance(each, str):
            yield each


def _find_id_names(state: State) -> set[str]:
    """Return the name and the aliases of the id."""
    field = None if isinstance(state, dict) else type(state).model_fields.get("id")
    return {"id", *(() if field is None else _iterate_aliases(field))}


def replace_state(state: State, saved: Mapping[str, Any], state_id: str) -> State:
    """Return a copy of the ``saved`` values as a state of the same type as ``state``, with the id ``state_id``.

    If ``state_id`` is empty, the saved id is kept.

    Raises:
        ValueError: the saved state does not fit the model, which may have changed.
    """
    values = copy_values(saved)
    if state_id:
        id_names = _find_id_names(state)
        values = {name: value for name, value in values.items() if name not in id_names} | {"id": state_id}
    if isinstance(state, dict):
        return values
    try:
        return _remake(state, _name_fields(type(state), values), type(state))
    except ValidationError as error:
        raise ValueError(f"the saved state does not fit {type(state).__name__}: {error}") from error


def _name_fields(model: type[BaseModel], saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``saved`` values under names that ``model`` accepts, without its computed fields."""
    fields = model.model_fields
    accepted = {*fields, *(alias for field in fields.values() for alias in _iterate_aliases(field))}
    written = {field.serialization_alias: name for name, field in fields.items()}
    computed = {field.alias or name for name, field in model.model_computed_fields.items()} - accepted
    return {
        name if name in accepted else written.get(name, name): value
        for name, value in saved.items()
        if name not in computed
    }


def resume_state(state: State, recorded: Mapping[str, Any] | None, inputs: Mapping[str, Any], state_id: str) -> State:
    """Return the state with which a resumed run continues, with the id ``state_id``.

    ``state`` is the initial state, ``inputs`` are the inputs of the run. ``recorded`` is the last recorded state of the
    run; None if no state was recorded.

    Raises:
        ValueError: the recorded state or the inputs do not fit the model, which may have changed.
    """
    if recorded is None:
        state = merge_inputs(state, inputs)
        return replace_state(state, dict(state), state_id)
    # The record of a dict is complete. The record of a model lacks the fields with ``exclude=True``.
    return replace_state(state, recorded if isinstance(state, dict) else {**dict(state), **recorded}, state_id)


def show_state(state: State) -> dict[str, Any]:
    """Return the state as a dict of values that JSON can represent. Any other value is replaced by its ``str()``.

    This never fails, because a value that cannot be shown is no reason to end the run.
    """
    return cast(dict[str, Any], _show(state, ()))


def _show(value: object, around: tuple[int, ...]) -> object:
    """Return ``value`` for :func:`show_state`. ``around`` has the ids of the containers that ``value`` is in."""
    try:
        return to_jsonable_python(value, fallback=in_words)
    # The value is, or contains, bytes that are not UTF-8, or a container that contains itself. Or a user's object, such
    # as a computed field, has raised an error.
    except Exception:  # noqa: BLE001
        inside = (*around, id(value))
        if id(value) in around or len(around) >= _MAX_DEPTH:  # str() would show too much, or recurse too deeply
            return f"<{type(value).__name__} …>"
        if isinstance(value, BaseModel):
            hidden = {name for name, field in type(value).model_fields.items() if field.exclude}
            return {name: _show(each, inside) for name, each in value if name not in hidden}
        if isinstance(value, dict):
            items = cast(dict[object, object], value).items()
            return {in_words(name): _show(each, inside) for name, each in items}
        if isinstance(value, list | tuple | set | frozenset):
            return [_show(each, inside) for each in cast(Iterable[object], value)]
        return in_words(value)


def read_id(state: State) -> str:
    """Return the id of the state; an empty string if the state has none."""
    found = state.get("id") if isinstance(state, dict) else getattr(state, "id", None)
    return "" if found is None else str(found)


def _remake(state: BaseModel, values: Mapping[str, Any], model: type[BaseModel]) -> BaseModel:
    """Return an instance of ``model`` with ``values``, and with the private attributes of ``state``.

    If ``model`` sets a private attribute during validation, the attribute keeps this new value, because the value may
    depend on the fields.
    """
    # by_name is needed because the keys of ``values`` are names of fields, even if a field has an alias. by_alias is
    # needed because the value for a nested model may be a dict, and its keys may be aliases.
    made = model.model_validate(values, by_name=True, by_alias=True)
    for name, private in made.__private_attributes__.items():
        if hasattr(state, name) and _is_untouched(made, name, private):
            setattr(made, name, getattr(state, name))
    return made


def _is_untouched(made: BaseModel, name: str, private: ModelPrivateAttr) -> bool:
    """Return whether a private attribute has its default, or no value at all."""
    if not hasattr(made, name):
        return True
    value: Any = getattr(made, name)
    factory: Any = private.default_factory
    try:
        # Do not use private.get_default(): it calls the factory in pydantic 2.12, but not in 2.14.
        default = private.default if factory is None else factory()
        # Objects that equal only themselves, such as locks, are compared by class.
        is_like = type(value) is type(default) and type(value).__eq__ is cast(Any, object).__eq__
        return is_like or bool(value == default)
    except Exception:  # noqa: BLE001 - raised by a user's __eq__, or by a factory that needs arguments
        return False


def _needs_id(model: type[BaseModel]) -> bool:
    return "id" in model.model_fields and model.model_fields["id"].is_required()


def _add_id(model: type[BaseModel]) -> type[BaseModel]:
    if "id" in model.model_fields:
        return model
    return create_model(
        model.__name__,
        __base__=model,
        __module__=model.__module__,
        id=(str, Field(default_factory=lambda: str(uuid4()))),
    )
