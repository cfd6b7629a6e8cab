"""What a page shows: sections of facts, charts and tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from plora_cl.report.comparison import Member, compare_runs
from plora_cl.report.drawing import Chart
from plora_cl.report.figures import comparing, costs, matrices, stream, training
from plora_cl.report.labels import NOTHING, clean, duration, share, signed
from plora_cl.report.run import Run
from plora_cl.report.tables import Column, Table, columns
from plora_cl.wording import counted, shown_bytes

MOST_DETAILED = 6
"""Runs up to which each one has a section of its own."""

_MOST_CLASSES, _MOST_SETTING = 300, 160


@dataclass(slots=True)
class Section:
    """A part of the page.

    Attributes:
        anchor: Its identifier on the page.
        title: Its heading.
        lead: Paragraphs below the heading.
        notes: Warnings.
        facts: Name and value of the main numbers; the third is an explanation, or empty.
        charts: Its figures.
        tables: Tables without a figure; those of ``folded`` are shown on demand.
        folded: Tables that are shown on demand.
    """

    anchor: str
    title: str
    lead: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: list[tuple[str, str, str]] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    folded: list[Table] = field(default_factory=list)


def sections(
    members: Sequence[Member], studies: Sequence[str], baseline: str | None
) -> list[Section]:
    """Return the sections of a report.

    Args:
        members: The runs.
        studies: Names of the studies that some are of.
        baseline: Method that the others are compared with.
    """
    found = []
    if len(members) > 1 or studies:
        found.append(_comparison(members, studies, baseline))
    if len(members) <= MOST_DETAILED:
        slugs = [""] if len(members) == 1 else [f"run{k + 1}-" for k in range(len(members))]
        found += [_run(one.run, slug) for one, slug in zip(members, slugs, strict=True)]
        if len(found) == 1:
            found[0].title = "Results" if members[0].run.is_finished else "Results so far"
    return found


def _comparison(members: Sequence[Member], studies: Sequence[str], baseline: str | None) -> Section:
    comparison = compare_runs(members, baseline)
    lead = []
    if studies:
        lead.append(
            f"{'Study' if len(studies) == 1 else 'Studies'}: {', '.join(map(clean, studies))}."
        )
    done = sum(one.run.is_finished for one in members)
    lead.append(
        f"{counted(len(members), 'run')} of {counted(len(comparison.lines), 'method')}; "
        f"{done} of them {'has' if done == 1 else 'have'} ended."
    )
    if len(members) > MOST_DETAILED:
        lead.append("Report the folder of one run to see its details.")
    drawn = (
        comparing.metrics(comparison),
        comparing.differences(comparison),
        comparing.along_stream(comparison),
        comparing.final_accuracy(comparison),
    )
    return Section(
        "comparison",
        "Comparison",
        lead,
        comparison.notes,
        charts=[chart for chart in drawn if chart is not None],
        tables=[table for table in [comparing.summary(comparison)] if table is not None],
        folded=[_runs_table(members)],
    )


def _runs_table(members: Sequence[Member]) -> Table:
    rows = [
        [
            one.source.label,
            one.source.order or NOTHING,
            str(one.run.settings.get("seed", NOTHING)),
            *_numbers(one.run),
            one.run.state,
        ]
        for one in members
    ]
    head = [Column("run", is_number=False), Column("order", is_number=False), Column("seed")]
    head += [Column(name) for name in ("ACC", "BWT", "forgetting", "macro-F1", "routed", "time")]
    return Table(
        "runs", "Every run", [*head, Column("state", is_number=False)], rows
    ).without_empty_columns()


def _numbers(run: Run) -> list[str]:
    return [
        share(run.metrics["average_accuracy"]),
        signed(run.metrics["backward_transfer"]),
        signed(run.metrics["forgetting"]),
        share(run.average_f1),
        share(run.routed_accuracy),
        duration(run.costs.total_seconds) if run.costs.total_seconds else NOTHING,
    ]


def _run(run: Run, slug: str) -> Section:
    charts = [matrices.accuracy_matrix(run, slug)]
    if run.is_routed:
        charts.append(matrices.routed_matrix(run, slug))
    if len(run.tasks) > 1:
        charts.append(stream.along_stream(run, slug))
    if any(row is not None for row in run.scores.confusion):
        charts.append(matrices.confusion(run, slug))
    others = (
        training.training(run, slug),
        costs.time_by_task(run, slug),
        costs.bytes_by_task(run, slug),
        costs.checkpoint_sizes(run, slug),
    )
    charts += [chart for chart in others if chart is not None]
    if not run.scores.learned:
        charts = [chart for chart in charts if chart in others]
    folded = [table for table in (_classes(run, slug), _settings(run, slug)) if table is not None]
    return Section(
        f"{slug}run",
        run.label,
        [clean(f"{run.folder.parent.name}/{run.folder.name}"), *_lead(run)],
        _notes(run),
        _facts(run),
        charts,
        [_scores(run, slug)],
        folded,
    )


def _lead(run: Run) -> list[str]:
    settings = run.settings
    parts = [
        f"Encoder {clean(str(settings['model_name']))}" if "model_name" in settings else "",
        f"seed {settings['seed']}" if "seed" in settings else "",
        counted(len(run.tasks), "task"),
        f"state: {run.state}",
    ]
    return [", ".join(filter(None, parts)) + "."]


def _notes(run: Run) -> list[str]:
    found = []
    if not run.is_finished:
        learned = run.scores.learned
        scores = f"Scores are those after {counted(learned, 'task')}" if learned else "No score yet"
        found.append(
            f"This run has not ended: it is {run.state}. {scores}; times are those up to the "
            "newest checkpoint."
        )
    found += [f"Zero by construction: {reason}." for reason in {*run.zero_by_construction.values()}]
    damaged = [one for one in run.storage.checkpoints if one.problem]
    found += [f"Damaged or unreadable: {clean(one.problem or '')}" for one in damaged[:10]]
    return found


def _facts(run: Run) -> list[tuple[str, str, str]]:
    metrics, zero = run.metrics, run.zero_by_construction

    def difference(name: str) -> str:
        return signed(metrics[name]) + "*" * (name in zero)

    scores = [
        ("ACC", share(metrics["average_accuracy"]), "mean accuracy after the last task"),
        ("BWT", difference("backward_transfer"), "backward transfer; negative: forgotten"),
        ("Forgetting", difference("forgetting"), "mean fall from the best score"),
        ("FWT", difference("forward_transfer"), "forward transfer to the next task"),
        ("Macro-F1", share(run.average_f1), "mean after the last task"),
        ("ACC routed", share(run.routed_accuracy), "with the task of each text inferred"),
    ]
    found = [fact for fact in scores if fact[1] != NOTHING]
    if run.costs.total_seconds:
        found.append(("Time", duration(run.costs.total_seconds), "all sessions together"))
    if run.costs.peak_memory_bytes:
        found.append(("Memory", shown_bytes(run.costs.peak_memory_bytes), "peak resident size"))
    if run.storage.checkpoints:
        total = run.storage.file_bytes + run.storage.object_bytes
        found.append(
            ("Disk", shown_bytes(total), counted(len(run.storage.checkpoints), "checkpoint"))
        )
    if "total" in run.parameters and "trainable_last_task" in run.parameters:
        trainable = run.parameters["trainable_last_task"] / max(1, run.parameters["total"])
        found.append(("Trained", f"{trainable:.2%}", "of all parameters, in the last task"))
    return found


def _scores(run: Run, slug: str) -> Table:
    last, scores = max(run.scores.learned - 1, 0), run.scores
    rows = [
        [
            task.name,
            *(share(matrix[last, k]) for matrix in (scores.accuracy, scores.f1, scores.routed)),
            share(scores.accuracy[k, k]),
            share(scores.untrained[k]),
            share(task.largest_share),
            NOTHING if task.classes is None else str(task.classes),
            NOTHING if task.test is None else str(task.test),
        ]
        for k, task in enumerate(run.tasks)
    ]
    head = columns(
        *("task", "final", "final F1", "final routed", "when learned", "untrained"),
        *("largest class", "classes", "test texts"),
    )
    note = (
        "Accuracy on the test split; F1 is macro-F1. Largest class: the accuracy of "
        "always answering it."
    )
    table = Table(f"{slug}scores", f"Scores by task: {run.label}", head, rows, note)
    return table.without_empty_columns()


def _classes(run: Run, slug: str) -> Table | None:
    by_class = (run.results or {}).get("by_class")
    if not isinstance(by_class, Mapping):
        return None
    rows = [
        [
            clean(task),
            clean(name),
            *(f"{scores[key]:.3f}" for key in ("precision", "recall", "f1")),
            str(scores["support"]),
        ]
        for task, classes in by_class.items()
        if classes is not None
        for name, scores in classes.items()
    ][:_MOST_CLASSES]
    head = [Column("task", is_number=False), Column("class", is_number=False)]
    head += [Column(name) for name in ("precision", "recall", "F1", "texts")]
    table = Table(f"{slug}classes", f"Scores by class at the end: {run.label}", head, rows)
    return table if rows else None


def _settings(run: Run, slug: str) -> Table | None:
    rows = [[clean(name), _shown(value)] for name, value in run.settings.items()]
    head = [Column("setting", is_number=False), Column("value", is_number=False)]
    table = Table(f"{slug}settings", f"Settings: {run.label}", head, rows)
    return table if rows else None


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = clean(text)
    return text if len(text) <= _MOST_SETTING else text[:_MOST_SETTING] + "…"
