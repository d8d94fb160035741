"""Reports wrong arguments in one line, without running anything."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from rxflow import _lazy
from rxflow._json_text import list_problems

with _lazy.extra("cli"):
    import typer

FAILED, REFUSED, PAUSED, INTERRUPTED = 1, 2, 3, 130


def refuse(message: str) -> NoReturn:
    """Print in one line what is wrong, and exit."""
    typer.echo(f"rxflow: {message}", err=True)
    raise typer.Exit(REFUSED)


@contextmanager
def refused(kind: type[Exception] = Exception, said: str = "") -> Generator[None]:
    """Exit with one line if the body, which reads arguments, raises ``kind``. The line begins with ``said``."""
    from pydantic import ValidationError

    try:
        yield
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
    """Return the file and line that raised ``error``, if it was the user's own code; otherwise an empty text."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    if not said or at is None or isinstance(error, SyntaxError):
        return ""
    # If this package raised the error, it called the user's object with arguments that do not fit.
    if Path(at.tb_frame.f_code.co_filename).parent == Path(__file__).parent:
        return ""
    return f" ({Path(at.tb_frame.f_code.co_filename).name}, line {at.tb_lineno})"
