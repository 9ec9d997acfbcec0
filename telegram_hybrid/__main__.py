"""`python -m telegram_hybrid`: the command line, or one line that says how to install it."""

from __future__ import annotations

import sys
from importlib.util import find_spec

_NEEDED = ("typer", "rich")


def main() -> int:
    """Run the command line on `sys.argv` and return its exit code (2: the extra is missing)."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"telegram_hybrid: the command line needs {' and '.join(missing)}: "
            "pip install 'telegram-hybrid[cli]'\n"
        )
        return 2
    try:
        from telegram_hybrid.cli import run
    except KeyboardInterrupt:
        return 130
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
