"""Errors and exit codes: one clear line on stderr, a traceback only with --debug.

0  done            1  a service failed, or a bug        2  bad input, usage or settings
130  Ctrl-C
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

import typer

from telegram_hybrid.cli.output import drop_stdout
from telegram_hybrid.errors import (
    ConfigurationError,
    CursorExpired,
    HybridError,
    InvalidInput,
    NotFound,
)

OK = 0
FAILED = 1
USAGE = 2
INTERRUPTED = 130

#: The base of usage errors: click's class, or the copy of it that newer versions of typer carry.
_ClickException: type[Exception] = typer.BadParameter.__mro__[2]

#: What the caller can put right.
_CALLERS = (InvalidInput, ConfigurationError, CursorExpired, NotFound, _ClickException)


def guarded(command: Callable[[], int], *, debug: bool) -> int:
    """Run `command` and return its exit code; an exception becomes one line and its code."""
    try:
        code = command()
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output went away, as `head` does: not worth a word.
        drop_stdout()
        return FAILED
    except Exception as error:  # noqa: BLE001 - the outermost edge: every error becomes a line
        if debug:
            traceback.print_exception(error)
        else:
            say(explain(error))
        return exit_code(error)
    if code == INTERRUPTED:  # from us, or from typer, which catches Ctrl-C itself
        say("interrupted")
    return code


def exit_code(error: Exception) -> int:
    """Return 2 for what the caller can put right (input, usage, settings), 1 for the rest."""
    if isinstance(
        error, (InvalidInput, ConfigurationError, CursorExpired, NotFound, _ClickException)
    ):
        return USAGE
    return FAILED


def explain(error: Exception) -> str:
    """Return what to tell a person about `error`."""
    if isinstance(error, _ClickException):
        text: str = error.format_message()  # type: ignore[attr-defined]
        return f"{text} (see {_help_for(error)})"
    if isinstance(error, HybridError):
        return "; ".join([str(error), *getattr(error, "__notes__", ())])
    return f"unexpected {type(error).__name__}: {error} (--debug shows where; please report it)"


def say(problem: str) -> None:
    """Write one line to stderr."""
    sys.stderr.write(f"telegram_hybrid: {problem}\n")


def _help_for(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "python -m telegram_hybrid"
    return f"{path} --help"
