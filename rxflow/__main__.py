"""The command ``rxflow``, also as ``python -m rxflow``."""

import sys


def main() -> None:
    """Run the command line. If its extra is not installed, name the extra and exit."""
    try:
        from rxflow.cli import app  # imported here, because programs that import rxflow do not need it
    except ModuleNotFoundError as error:
        print(f"rxflow: {error}", file=sys.stderr)  # noqa: T201 - a command prints its errors
        raise SystemExit(2) from None
    except KeyboardInterrupt:  # the imports take a while
        print("rxflow: interrupted; nothing was run", file=sys.stderr)  # noqa: T201 - the same
        raise SystemExit(130) from None
    app()


if __name__ == "__main__":
    main()
