"""The command ``rxflow``. ``python -m rxflow`` runs it too."""

import sys


def main() -> None:
    """Run the command line. If a package is missing, print the name of the extra that installs it, and exit."""
    try:
        from rxflow.cli import app  # imported here, so that import errors are handled below
    except ModuleNotFoundError as error:
        print(f"rxflow: {error}", file=sys.stderr)  # noqa: T201 - a command prints its errors
        raise SystemExit(2) from None
    except KeyboardInterrupt:  # Ctrl-C during the import, which takes a while
        print("rxflow: interrupted; nothing was run", file=sys.stderr)  # noqa: T201 - the same
        raise SystemExit(130) from None
    app()


if __name__ == "__main__":
    main()
