"""The method that docs/add-a-method.md shows, as the file that a reader would save."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

PAGE = Path(__file__).parents[2] / "docs" / "add-a-method.md"


def write_example(folder: Path) -> Path:
    """Write ``l2_anchor.py`` into ``folder``; return its path."""
    (code,) = re.findall(
        r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    file = folder / "l2_anchor.py"
    file.write_text(code, encoding="utf-8")
    return file


def load_example(folder: Path) -> ModuleType:
    """Write the example into ``folder`` and import it."""
    spec = importlib.util.spec_from_file_location("l2_anchor", write_example(folder))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
