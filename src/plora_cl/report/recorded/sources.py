"""What a report was asked for: experiments, and studies with all their runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plora_cl.config.fields import SettingFields
from plora_cl.config.locations import RECORD
from plora_cl.errors import ReportError
from plora_cl.report.recorded.result_files import read_json
from plora_cl.study.file import read_study
from plora_cl.study.plan import planned_runs, run_name, study_folder
from plora_cl.wording import nearest

_SEED = re.compile(r"seed([0-9]{1,19})")


@dataclass(frozen=True, slots=True)
class Source:
    """A run to be reported.

    Attributes:
        folder: Of its experiment.
        method: What it is called; runs of the same method and variant are repetitions.
        variant: Variant of a study; empty if there is none.
        order: Name of the order of a study; empty outside studies.
        seed: Seed of a study; None outside studies.
    """

    folder: Path
    method: str
    variant: str = ""
    order: str = ""
    seed: int | None = None

    @property
    def label(self) -> str:
        """Method and variant."""
        return f"{self.method} ({self.variant})" if self.variant else self.method


@dataclass(slots=True)
class Sources:
    """All runs to be reported.

    Attributes:
        runs: In the order asked for.
        studies: Names of the studies that they are of.
        baseline: Method that the others are compared with, as a study or the order says.
    """

    runs: list[Source] = field(default_factory=list)
    studies: list[str] = field(default_factory=list)
    baseline: str | None = None

    @property
    def methods(self) -> list[str]:
        """Names of the methods, without repetitions."""
        return list(dict.fromkeys(run.method for run in self.runs))

    def title(self, source: Source) -> str:
        """Return what to call one run; a repetition is called by its folder, too."""
        labels = [run.label for run in self.runs]
        repeated = labels.count(source.label) > 1
        return f"{source.label}: {source.folder.name}" if repeated else source.label


def is_experiment(folder: Path) -> bool:
    """Return whether a run began in ``folder``."""
    return (folder / RECORD).is_file() or (folder / "checkpoints").is_dir()


def find_sources(paths: Sequence[Path], names: Sequence[str] = ()) -> Sources:
    """Return the runs that ``paths`` name.

    Args:
        paths: Experiment folders, study folders, and YAML files of studies.
        names: What to call each path; runs that are called the same are repetitions.

    Raises:
        ReportError: A path names neither, or ``names`` are not one for each path.
        SettingsError: The file of a study is wrong.
    """
    if names and len(names) != len(paths):
        raise ReportError(
            f"--names: {len(names)} for {len(paths)} runs; expected one for each, in their order"
        )
    found = Sources()
    for place, path in enumerate(paths):
        name = names[place] if names else None
        study = _study(path)
        if study is None:
            found.runs.append(Source(path, name or path.absolute().name))
            continue
        runs, title, baseline = study
        found.studies.append(title)
        prefix = f"{name or title}: " if name or len(paths) > 1 else ""
        found.runs += [
            Source(r.folder, f"{prefix}{r.method}", r.variant, r.order, r.seed) for r in runs
        ]
        if found.baseline is None and baseline is not None:
            found.baseline = f"{prefix}{baseline}"
    if not found.studies and len(found.methods) > 1:
        found.baseline = found.methods[0]
    return found


def _study(path: Path) -> tuple[list[Source], str, str | None] | None:
    """Return the runs, the name and the baseline of a study; None for an experiment.

    Raises:
        ReportError: It is neither.
    """
    if path.is_file():
        if path.suffix not in (".yaml", ".yml"):
            raise ReportError(f"{path}: expected the folder of an experiment or of a study")
        study = read_study(path)
        names = {run.name for run in planned_runs(study, str(path))}
        runs = [run for run in _runs_in(study_folder(study)) if run.folder.name in names]
        if not runs:
            raise ReportError(f"{path}: no run of this study has begun in {study_folder(study)}")
        return runs, study.name, study.baseline
    if is_experiment(path):
        return None
    runs = _runs_in(path)
    if not runs:
        raise ReportError(_neither(path))
    return runs, path.absolute().name, _baseline_in(path / "summary.json")


def _runs_in(folder: Path) -> list[Source]:
    """Return the runs of the study in ``folder``, which their names tell apart."""
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        parts = path.name.split("__")
        seed = _SEED.fullmatch(parts[-1])
        if seed is None or len(parts) not in (3, 4) or not is_experiment(path):
            continue
        method, order, variant = parts[0], parts[1], "".join(parts[2:-1])
        if path.name == run_name(method, order, variant, int(seed[1])):
            found.append(Source(path, method, variant, order, int(seed[1])))
    return found


def _baseline_in(summary: Path) -> str | None:
    """Return the one method in a summary of a study that is compared with no other."""
    groups = (read_json(summary) or {}).get("groups")
    methods: dict[str, bool] = {}
    for group in groups if isinstance(groups, list) else ():
        if isinstance(group, Mapping) and isinstance(group.get("method"), str):
            is_compared = methods.get(group["method"], False) or _is_compared(group)
            methods[group["method"]] = is_compared
    alone = [method for method, is_compared in methods.items() if not is_compared]
    return alone[0] if len(alone) == 1 and len(methods) > 1 else None


def _is_compared(group: Mapping[str, Any]) -> bool:
    return group.get("comparison") is not None


def _neither(path: Path) -> str:
    inside = _experiments(path)
    if inside:
        return f"{path} holds the experiments {', '.join(inside[:5])}; name them one by one"
    for parent in (path.parent, Path(SettingFields().experiment_dir)):
        if (meant := nearest(path.name, _experiments(parent))) is not None:
            return f"{path} holds no run; did you mean {parent / meant}?"
    return f"{path} holds no run; expected the folder of an experiment or of a study"


def _experiments(parent: Path) -> list[str]:
    if not parent.is_dir():
        return []
    return sorted(path.name for path in parent.iterdir() if is_experiment(path))
