"""The command line: ``rxflow run``, ``serve``, ``plot``, ``replay``, ``new`` and ``runs``.

Exit codes: 0: the run completed. 1: it failed. 2: nothing was run, because an argument is wrong. 3: the run is paused,
because nobody answers its question. 130: Ctrl-C interrupted it. 128 + n: signal n ended it.
"""

from rxflow.cli._commands import app

__all__ = ["app"]
