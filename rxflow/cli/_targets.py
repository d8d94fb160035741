"""Reads command-line arguments: finds a flow or a crew, and its inputs. A wrong argument is reported in one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn, cast

from rxflow import _lazy
from rxflow._text import list_problems

if TYPE_CHECKING:
    from rxflow.flow import Flow
    from rxflow.runs.options import WhenUnread


with _lazy.extra("cli"):
    import typer

FAILED, REFUSED, PAUSED, INTERRUPTED = 1, 2, 3, 130


def refuse(message: str) -> NoReturn:
    """Print ``message`` as an error, and exit with the code ``REFUSED``."""
    typer.echo(f"rxflow: {message}", err=True)
    raise typer.Exit(REFUSED)


@contextmanager
def refuse_on_error(kind: type[Exception] = Exception, said: str = "") -> Generator[None]:
    """If the ``with`` block raises ``kind``, print ``said`` and the error in one line, and exit."""
    from pydantic import ValidationError

    try:
        yield
    except typer.Exit:
        raise  # an inner refuse() has already printed a line
    except kind as error:
        cause = error if isinstance(error, ValidationError) else error.__cause__
        if isinstance(cause, ValidationError):
            refuse(f"{said}{str(error).partition(':')[0]}: {list_problems(cause, 'the state')}")
        is_plain = isinstance(error, ValueError | TypeError | OSError | ModuleNotFoundError) and not said
        name = "" if is_plain else f"{type(error).__name__}: "
        number = f"[Errno {getattr(error, 'errno', None)}] "
        message = str(error).removeprefix(number).strip().partition("\n")[0]
        refuse(f"{said}{name}{message}{_place(error, said)}")


def _place(error: Exception, said: str) -> str:
    """Return the file and line that raised ``error``, as text for the message.

    Return an empty text if ``said`` is empty, if ``error`` is a SyntaxError, or if ``rxflow.cli`` raised ``error``.
    """
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    if not said or at is None or isinstance(error, SyntaxError):
        return ""
    # If a file of rxflow.cli raised the error, the call in load_target() or load_flow_class() failed before any line of
    # the user's code. For example, the user's class needs arguments.
    if Path(at.tb_frame.f_code.co_filename).parent == Path(__file__).parent:
        return ""
    return f" ({Path(at.tb_frame.f_code.co_filename).name}, line {at.tb_lineno})"


def read_inputs(given: Iterable[str]) -> dict[str, Any]:
    """Return the inputs from arguments of the form ``NAME=TEXT`` and ``NAME:=JSON``."""
    inputs: dict[str, Any] = {}
    for each in given:
        name, equals, text = each.partition("=")
        is_json = name.endswith(":")
        name = name.removesuffix(":").strip()
        if not equals or not name:
            refuse(f"--input {each!r} is not NAME=TEXT (or NAME:=JSON)")
        if name in inputs:
            refuse(f"--input {name!r} is given twice")
        try:
            inputs[name] = json.loads(text) if is_json else text
        except ValueError as error:
            refuse(f"--input {name!r} is not JSON: {error}; write {name}=… for text")
    return inputs


def read_when_unread(given: str) -> WhenUnread:
    """Read the argument of ``--when-unread``: ``detach``, ``cancel``, or a number of seconds."""
    from rxflow.runs.options import read_grace

    if given == "detach":
        return "detach"
    if given == "cancel":
        return "cancel"
    try:
        seconds = float(given)
        read_grace(seconds)
    except ValueError:
        refuse(f"--when-unread {given!r} is neither detach nor cancel nor a time above 0, in seconds")
    return seconds


def load_target(target: str) -> tuple[str, Any]:
    """Return the full name ``module:Name`` for ``target``, and the flow or crew with this name.

    If a module has exactly one flow or crew, the name of the module is enough. A class or a function is called without
    arguments, and the result is returned. If the result is an object of a ``@CrewBase`` class, its crew is returned.
    """
    path, found = _find_target(target)
    kind = f"is {_describe(found)}"
    if callable(found) and not hasattr(type(found), "events"):
        with refuse_on_error(Exception, f"{path} cannot be created: "):
            is_class = isinstance(found, type)
            found = found()
            kind = kind if is_class else f"returns {_describe(found)}"
            crew: Any = getattr(found, "crew", None)
            if crew is not None and not hasattr(found, "events"):
                found = crew()  # ``found`` was an object of a @CrewBase class
    if not callable(getattr(found, "events", None)):
        refuse(f"{path} {kind}, not a flow or a crew")
    return path, found


def load_flow_class(target: str) -> type[Flow[Any]]:
    """Return the flow class that ``target`` names, for callers that need a new flow for each run.

    Exit if ``target`` is not a flow class, or if the class cannot be called without arguments.
    """
    from rxflow.flow import Flow

    path, found = _find_target(target)
    kind, class_name = _describe(found), type(found).__name__
    if isinstance(found, Flow):
        refuse(f"{path} is a flow; each run needs a flow of its own, so name its class, {class_name}")
    if not (isinstance(found, type) and issubclass(found, Flow)):
        refuse(f"{path} is {kind}, not a flow class")
    with refuse_on_error(Exception, f"{path} cannot be created: "):
        found()
    return cast("type[Flow[Any]]", found)


def _describe(value: object) -> str:
    """Return what ``value`` is, as the words of a message: "a module", "an int", "a subclass of BaseModel"."""
    if isinstance(value, type):
        if callable(getattr(value, "crew", None)):
            return "a crew class"
        return "a plain class" if value.__base__ in (None, object) else f"a subclass of {value.__base__.__name__}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def _find_target(target: str) -> tuple[str, Any]:
    """Return the full name ``module:Name`` for ``target``, and the object with this name. Do not call the object."""
    module_name, colon, name = target.partition(":")
    if not module_name or (colon and not name):
        refuse(f"{target!r} is not MODULE:NAME, for example trips:Trip")
    if module_name.endswith(".py") or "/" in module_name:
        meant = module_name.removesuffix(".py").replace("/", ".").strip(".")
        refuse(f"{module_name!r} is a file; name the module, {meant}:{name or 'Name'}")
    if module_name.startswith("."):
        refuse(f"{module_name!r} is a relative name; name the module from the current folder, as in trips:Trip")
    module = _import(module_name, is_named=bool(colon))
    runnable = sorted(key for key, value in vars(module).items() if _is_runnable(value, module_name))
    if not colon:
        if len(runnable) != 1:
            choice = ", ".join(f"{module_name}:{key}" for key in runnable)
            refuse(f"name one of {choice}" if choice else f"{module_name} has no flow and no crew")
        name = runnable[0]
    found: Any = getattr(module, name, None)
    if found is None:
        close = get_close_matches(name, [*runnable, *vars(module)], n=1)
        known = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(runnable) or 'no flow and no crew'}"
        refuse(f"{module_name} has no {name!r}; {known}")
    return f"{module_name}:{name}", found


def _import(name: str, *, is_named: bool) -> ModuleType:
    """Import a module. The current folder is searched first. Exit if the module is missing or cannot be imported.

    ``is_named`` is False if the target is only ``name``. Then the last part of it may be meant as a name in a module.
    """
    sys.path.insert(0, str(Path.cwd()))
    module = None
    try:
        with refuse_on_error(Exception, f"importing {name} failed: "):
            try:
                module = import_module(name)
            except ModuleNotFoundError as error:
                # Raise if the missing module is neither ``name`` nor a parent package of ``name``.
                if not f"{name}.".startswith(f"{error.name}."):
                    raise
    except SystemExit as error:
        refuse(
            f"importing {name} failed: it ends the program (SystemExit: {error.code}); "
            'let it do so only if __name__ == "__main__"'
        )
    if module is None:
        parent, _, last = name.rpartition(".")
        if not is_named and hasattr(sys.modules.get(parent), last):
            refuse(f"there is no module {name!r}; did you mean {parent}:{last}?")
        refuse(f"there is no module {name!r}, neither in {Path.cwd()} nor installed")
    return module


def check_inputs(source: object, inputs: Mapping[str, Any]) -> None:
    """Exit if ``source`` is a flow, and the state of this flow has no field for an input."""
    from rxflow.flow._state import require_known

    with refuse_on_error(ValueError):
        require_known(getattr(source, "state", None), inputs)


def _is_runnable(value: object, module: str) -> bool:
    from rxflow.crew import Crew
    from rxflow.flow import Flow

    if isinstance(value, type):
        return issubclass(value, Flow) and value is not Flow and cast(type, value).__module__ == module
    return isinstance(value, Flow | Crew)
