"""The command line: ``rxflow run``, ``serve``, ``plot``, ``replay``, ``new`` and ``runs``.

Exit codes: 0, the run has completed; 1, it has failed; 2, nothing was run, since something given does not fit; 3, it is
paused, since it asks and nobody answers; 130, it was interrupted by Ctrl-C; 128 + n, it was ended by signal n.
"""

from rxflow.cli._commands import app

__all__ = ["app"]
