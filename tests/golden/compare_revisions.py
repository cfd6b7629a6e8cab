"""Compares what two revisions make of the same run, bit by bit: a refactoring changes nothing.

From the repository: ``uv run python tests/golden/compare_revisions.py REV_A [REV_B]``; without
``REV_B`` the working tree. Each revision learns two small tasks with every technique on, by its own
command line: once to the end, and once killed in every phase and resumed. Exit code 0 means
identical, 1 different, 2 that a run failed or could not be killed where it was to be.

``golden_evidence.NORMALISED`` has what is not compared, and why.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from golden.golden_evidence import KINDS, NORMALISED, ORDERED, Evidence, evidence_of
from golden.golden_runs import EXPERIMENT, KILLS, RunError, Runs

ROOT = Path(__file__).resolve().parents[2]

_SHOWN = 5
_MODES = ("not killed", "killed")


@contextmanager
def tree_of(revision: str | None, folder: Path) -> Iterator[Path]:
    """Yield the files of ``revision``: a worktree at ``folder``, or the working tree itself."""
    if revision is None:
        yield ROOT
        return
    _git("worktree", "add", "--quiet", "--detach", str(folder), revision)
    try:
        yield folder
    finally:
        _git("worktree", "remove", "--force", str(folder))


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def evidence_from(runs: Runs, tree: Path) -> dict[str, Evidence]:
    """Return the evidence of both runs of ``tree``, by `_MODES`."""
    experiment = runs.folder / EXPERIMENT
    found = {}
    for mode, run in zip(_MODES, (runs.without_a_kill, runs.with_kills), strict=True):
        started = time.monotonic()
        run(tree)
        found[mode] = evidence_of(experiment)
        print(f"  {mode}: {time.monotonic() - started:.0f} s", flush=True)
    return found


def differences(kind: str, a: Evidence, b: Evidence, where: str) -> list[str]:
    """Return a line for each value of ``kind`` that is not the same."""
    names = dict.fromkeys([*a[kind], *b[kind]])
    pairs = ((name, a[kind].get(name), b[kind].get(name)) for name in names)
    return [
        f"{name} ({where}): {_short(one)} | {_short(other)}"
        for name, one, other in pairs
        if one != other
    ]


def _short(value: str | None, most: int = 100) -> str:
    text = "absent" if value is None else value.rstrip("\n")
    return text if len(text) <= most else f"{text[:most]}..."


def show(kind: str, found: list[str], values: int) -> bool:
    """Print the line of ``kind`` and its first differences; tell whether there are any."""
    print(f"{kind}: " + (f"{len(found)} differ" if found else f"identical ({values} values)"))
    for line in found[:_SHOWN]:
        print(f"    {line}")
    if len(found) > _SHOWN:
        print(f"    and {len(found) - _SHOWN} more")
    return bool(found)


def compare(one: dict[str, Evidence], other: dict[str, Evidence]) -> bool:
    """Print a line for each kind, and for what kills have changed; tell whether all is the same."""
    differ = []
    for kind in KINDS:
        found = [
            line for mode in _MODES for line in differences(kind, one[mode], other[mode], mode)
        ]
        differ.append(show(kind, found, sum(len(one[mode][kind]) for mode in _MODES)))
    for name, by_mode in (("first", one), ("second", other)):
        killed, whole = by_mode["killed"], by_mode["not killed"]
        kinds = [kind for kind in KINDS if kind != ORDERED]
        found = [line for kind in kinds for line in differences(kind, whole, killed, kind)]
        values = sum(len(whole[kind]) for kind in kinds)
        differ.append(show(f"{name} revision, killed or not", found, values))
    return not any(differ)


def main() -> int:
    """Compare as the command line says; return the exit code."""
    parser = argparse.ArgumentParser(description="Compare a run of two revisions bit by bit.")
    parser.add_argument("one", metavar="REV_A")
    parser.add_argument("other", metavar="REV_B", nargs="?", help="default: the working tree")
    arguments = parser.parse_args()
    print(f"{len(KILLS)} kills; {len(NORMALISED)} kinds of values are normalised")
    with tempfile.TemporaryDirectory(prefix="golden-") as scratch:
        (Path(scratch) / "run").mkdir()
        found = []
        try:
            runs = Runs(Path(scratch) / "run")
            for revision in (arguments.one, arguments.other):
                print(revision or "the working tree", flush=True)
                with tree_of(revision, Path(scratch) / "tree") as tree:
                    found.append(evidence_from(runs, tree))
        except (RunError, subprocess.SubprocessError) as error:
            print(error, file=sys.stderr)
            return 2
    return 0 if compare(*found) else 1


if __name__ == "__main__":
    sys.exit(main())
