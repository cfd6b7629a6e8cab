"""A quick check that a task exists."""

from __future__ import annotations

from plora_cl.data.sources.base import TaskSource
from plora_cl.data.sources.classes import OnlyClasses
from plora_cl.data.sources.folder import FolderSource
from plora_cl.data.sources.packaged import PackagedSource
from plora_cl.data.tokens.scan import no_rows


def require_there(source: TaskSource) -> None:
    """Read the first row of each split of a folder, or find the package of a packaged task.

    Nothing is downloaded: tasks of the hub are not checked.

    Raises:
        DataError: A file, a column or a package is missing or cannot be read.
    """
    if isinstance(source, OnlyClasses):
        source = source.source
    if isinstance(source, FolderSource):
        for split in source.splits():
            if next(source.rows(split), None) is None:
                raise no_rows(source, split)
    elif isinstance(source, PackagedSource):
        source.folder()
