"""How a command ends."""

from __future__ import annotations

import sys
from collections.abc import Callable

from plora_cl.errors import PloraError, RunStoppedError, SettingsError

OK = 0
REFUSED = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def exit_code(command: Callable[[], object]) -> int:
    """Run a command and return what the process exits with.

    Errors raised on purpose become ``Error:`` lines on stderr, and so does a file or folder that
    the system refuses; anything else is a bug and propagates with its traceback.
    """
    try:
        command()
    except SettingsError as error:
        for problem in error.problems:
            print(f"Error: {problem}", file=sys.stderr)
        return REFUSED
    except RunStoppedError as error:
        print(f"Run {error}", file=sys.stderr)
        return error.exit_code
    except PloraError as error:
        print(f"Error: {error}", file=sys.stderr)
        return REFUSED
    except OSError as error:
        if error.filename is None:
            raise
        print(f"Error: {error.filename}: {error.strerror}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print("Interrupted", file=sys.stderr)
        return INTERRUPTED
    return OK
