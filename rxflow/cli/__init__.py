"""The command line: ``rxflow run``, ``serve``, ``plot``, ``replay``, ``new`` and ``runs``.

Exit codes:

- 0: the command succeeded. If the command shows a run, the run completed.
- 1: the run failed, was cancelled or was lost.
- 2: the command was refused. For example, an argument is wrong, or the store cannot be read.
- 3: the run is paused, because a question was not answered.
- 130: Ctrl-C interrupted the command. ``rxflow serve`` returns 0 instead, because Ctrl-C is its usual end.
- 128 + n: signal n ended the command.
"""

from rxflow.cli._commands import app

__all__ = ["app"]
