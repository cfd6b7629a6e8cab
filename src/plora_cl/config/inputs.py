"""Check that tasks and models exist before anything is fetched or takes long to load."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from plora_cl.config.fields import SettingFields
from plora_cl.data.sources.base import TaskSource
from plora_cl.data.sources.declaration import parse_tasks
from plora_cl.errors import PloraError, SettingsError
from plora_cl.methods.registry import active
from plora_cl.model.locations import resolve_packaged
from plora_cl.pretrained.folder import require_model_folder


def require_inputs(runs: Iterable[SettingFields]) -> None:
    """Check the local folders, files and packages that runs with these settings start from.

    Nothing on a hub is checked.

    Raises:
        SettingsError: Something is missing or cannot be read; lists every such problem once.
    """
    problems = dict.fromkeys(problem for settings in runs for problem in _problems(settings))
    if problems:
        raise SettingsError(list(problems))


def _problems(settings: SettingFields) -> Iterator[str]:
    sources: list[TaskSource] = []
    yield from _problem_of(lambda: sources.extend(parse_tasks(settings.tasks)))
    checks: list[Callable[[], None]] = [source.require_there for source in sources]
    checks.append(partial(_require_encoder, settings.model_name))
    checks += [partial(technique.require_inputs, settings) for technique in active(settings)]
    for check in checks:
        yield from _problem_of(check)


def _require_encoder(model_name: str) -> None:
    require_model_folder("model_name", resolve_packaged(model_name), "an encoder")


def _problem_of(check: Callable[[], None]) -> list[str]:
    try:
        check()
    except PloraError as error:
        return [str(error)]
    return []
