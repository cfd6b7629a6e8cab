"""Exit codes, and errors as lines on stderr."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable
from contextvars import ContextVar

from plora_cl.errors import PloraError, RunStoppedError, SettingsError

OK = 0
REFUSED = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells report it

_LONGEST = 4000  # characters: a message may list names, and name files


def error_line(problem: object) -> str:
    """Return the ``Error:`` line of a problem; the middle of a long one is left out."""
    text = f"Error: {problem}"
    if len(text) <= _LONGEST:
        return text
    left = len(text) - _LONGEST
    return f"{text[: _LONGEST // 2]} [{left} characters left out] {text[-_LONGEST // 2 :]}"


_debugging: ContextVar[bool] = ContextVar("_debugging", default=False)


def show_tracebacks(*, on: bool = True) -> None:
    """Let `exit_code` print the traceback of an error before its line."""
    _debugging.set(on)


class _LogLine(logging.Formatter):
    """Writes a record as ``Warning: ...`` or ``Error: ...``."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.capitalize()}: {super().format(record)}"


def exit_code(command: Callable[[], int | None]) -> int:
    """Run a command and return the exit code of the process: the command's own, 0 for None.

    Errors raised on purpose become ``Error:`` lines on stderr, and so does a file or folder that
    the system refuses; anything else is a bug and propagates with its traceback. What is logged
    becomes ``Warning:`` lines.
    """
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_LogLine())
    try:
        try:
            return command() or OK
        except Exception:
            if _debugging.get():
                traceback.print_exc()
            raise
    except SettingsError as error:
        for problem in error.problems:
            print(error_line(problem), file=sys.stderr)
        return REFUSED
    except RunStoppedError as error:
        print(f"Run {error}", file=sys.stderr)
        return error.exit_code
    except PloraError as error:
        print(error_line(error), file=sys.stderr)
        return REFUSED
    except OSError as error:
        if error.filename is None:
            raise
        print(error_line(f"{error.filename}: {error.strerror}"), file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print("Interrupted", file=sys.stderr)
        return INTERRUPTED
