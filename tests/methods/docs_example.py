"""The method that docs/add-a-method.md shows, as the file that a reader would save."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

PAGE = Path(__file__).parents[2] / "docs" / "add-a-method.md"


def write_example(folder: Path) -> Path:
    """Write ``l2_anchor.py`` into ``folder``; return its path."""
    file = folder / "l2_anchor.py"
    file.write_text(_block("python"), encoding="utf-8")
    return file


def write_package(folder: Path) -> Path:
    """Write the example as a package that can be installed into ``folder``; return the folder."""
    folder.mkdir()
    write_example(folder)
    (folder / "pyproject.toml").write_text(_block("toml"), encoding="utf-8")
    return folder


def _block(language: str) -> str:
    page = PAGE.read_text(encoding="utf-8")
    (code,) = re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return str(code)


def load_example(folder: Path) -> ModuleType:
    """Write the example into ``folder`` and import it."""
    spec = importlib.util.spec_from_file_location("l2_anchor", write_example(folder))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["l2_anchor"] = module  # annotations are resolved there
    spec.loader.exec_module(module)
    return module
