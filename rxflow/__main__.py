"""The command ``rxflow``, also as ``python -m rxflow``."""

import sys


def main() -> None:
    """Run the command line; without its extra, say which one."""
    try:
        from rxflow.cli import app  # programs that import rxflow do not need it
    except ModuleNotFoundError as error:
        print(f"rxflow: {error}", file=sys.stderr)  # noqa: T201 - a command has no other way to say it
        raise SystemExit(2) from None
    except KeyboardInterrupt:  # the imports take a while
        print("rxflow: interrupted; nothing was run", file=sys.stderr)  # noqa: T201 - the same
        raise SystemExit(130) from None
    app()


if __name__ == "__main__":
    main()
