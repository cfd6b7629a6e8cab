"""What a report needs before anything is read: its libraries, and a folder to write to."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from plora_cl.errors import ReportError


def require_libraries() -> None:
    """Make sure that the extra ``report`` is installed.

    Raises:
        ReportError: It is not.
    """
    missing = [name for name in ("matplotlib", "jinja2") if importlib.util.find_spec(name) is None]
    if missing:
        raise ReportError(f"a report needs {' and '.join(missing)}: pip install 'plora-cl[report]'")


def require_folder(folder: Path) -> None:
    """Refuse a folder that holds other things than a report.

    Raises:
        ReportError: It does, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ReportError(f"{folder} is a file: name a folder with --out")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "report.html").is_file():
        raise ReportError(
            f"{folder} is not empty and holds no report.html: name a new folder with --out"
        )
