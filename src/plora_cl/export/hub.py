"""Pushing an export to a hub of models."""

from __future__ import annotations

import re
from pathlib import Path

from plora_cl.errors import OutputError

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_LONGEST_NAME = 96


def require_pushable(repository: str) -> None:
    """Refuse what cannot be pushed, before anything is loaded.

    Raises:
        OutputError: The name is none of a repository, or nobody is logged in.
    """
    name = repository.rpartition("/")[2]
    odd = "--" in name or ".." in name or name.endswith((".git", "-", "."))
    if not _NAME.fullmatch(repository) or odd or len(repository) > _LONGEST_NAME:
        raise OutputError(f"--push: {repository!r} is not the name of a repository; OWNER/NAME is")
    from huggingface_hub import get_token
    from huggingface_hub.constants import is_offline_mode

    if is_offline_mode():
        raise OutputError("--push: the hub is switched off (HF_HUB_OFFLINE is set); unset it")
    if get_token() is None:
        raise OutputError(
            "--push: nobody is logged in to the hub; run hf auth login, or set HF_TOKEN"
        )


def push(folder: Path, repository: str) -> str:
    """Upload an export, and return the address of its page.

    A repository that does not exist is made, and is private.

    Args:
        folder: The export.
        repository: ``OWNER/NAME``.

    Raises:
        OutputError: The hub refused or cannot be reached; the folder is complete nevertheless.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    from plora_cl.pretrained.loading import first_line  # imports transformers

    disable_progress_bars()
    api = HfApi(library_name="plora-cl")
    try:
        made = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(
            folder_path=folder, repo_id=repository, commit_message="Export of plora-cl"
        )
    except Exception as error:  # of the HTTP client, which changes from version to version
        raise OutputError(
            f"{folder} is complete, and was not pushed to {repository}: {first_line(error)}; push "
            f"it later with: hf upload {repository} {folder}"
        ) from error
    return str(made)
