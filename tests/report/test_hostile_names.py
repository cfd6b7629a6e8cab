"""Names and values in files are shown, and can do nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from plora_cl.report.labels import clean, short_labels
from plora_cl.report.latex import latex
from plora_cl.report.tables import Table, columns
from report.conftest import Page, Report

HOSTILE = [
    "<script>alert(1)</script>",
    "</svg></style><img src=x onerror=alert(1)>",
    'a" onload="alert(1)',
    "$\\input{/etc/passwd}$ & % # _ ~ ^ \\end{tabular}",
    "{{ 77777 * 77777 }}{% raw %}",
    "--]]> <!-- &lt;b&gt; ]]>",
    "turned \u202eround\u0007\x1b[31m",
    "x" * 5_000,
]


def renamed(folder: Path, names: list[str]) -> None:
    """Give the tasks of a finished run other names, wherever a file has them."""
    path = folder / "results" / "final_results.json"
    found = json.loads(path.read_bytes())
    found["by_class"] = {
        name: {f"{name} class": scores for scores in list(classes.values())[:1]}
        for name, classes in zip(names, found["by_class"].values(), strict=False)
    }
    for task, name in zip(found["tasks"], names, strict=False):
        task["name"] = name
    found["zero_by_construction"] = {"forgetting": names[0]}
    path.write_text(json.dumps(found))
    costs = folder / "results" / "computational_costs.json"
    measured = json.loads(costs.read_bytes())
    measured["seconds"] = dict(zip(names, measured["seconds"].values(), strict=False))
    costs.write_text(json.dumps(measured))
    log = folder / "results" / "run_log.jsonl"
    events = [json.loads(line) for line in log.read_text().splitlines()]
    for event in events:
        if event["event"] == "step":
            event["penalties"] = dict.fromkeys(names, 0.5)
    events.insert(
        3, {"event": "changed", "step": 3, "changes": [dict.fromkeys(("key", "now"), names[0])]}
    )
    log.write_text("".join(json.dumps(event) + "\n" for event in events))


@pytest.mark.parametrize("first", range(len(HOSTILE)))
def test_a_name_injects_nothing_into_page_and_figures(
    copy: Path, first: int, report: Report
) -> None:
    names = [f"{HOSTILE[(first + k) % len(HOSTILE)]}" for k in range(3)]
    renamed(copy, names)
    out = report(copy, "--names", HOSTILE[first])
    page = Page(out / "report.html")
    assert not {"script", "img", "b", "iframe"} & {tag for tag, _ in page.elements}
    assert not [key for _, a in page.elements for key in a if key.startswith("on")]
    assert clean(names[0]) in page.text
    assert str(77777**2) not in page.text
    assert all(c.isprintable() or c == "\n" for c in page.text)
    for path in (out / "figures").glob("*.svg"):
        assert "onerror=alert(1)>" not in path.read_text("utf-8")


def test_a_table_holds_no_command_of_a_name() -> None:
    rows = [[clean(name), "1"] for name in HOSTILE]
    text = latex(Table("t", "\n".join(HOSTILE), columns("\\evil", "[x]"), rows, HOSTILE[0]))
    body = text.partition("\\midrule")[2].partition("\\bottomrule")[0]
    assert body.count("\\\\") == len(HOSTILE) == len(body.strip().splitlines())
    assert "\\input{" not in body
    assert text.count("\\end{tabular}") == 1 + text.partition("\n")[0].count("\\end{tabular}")
    assert "\\textbackslash{}evil" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
def test_every_table_compiles(copy: Path, report: Report, tmp_path: Path) -> None:
    renamed(copy, HOSTILE[2:5])
    tables = sorted((report(copy, "--names", HOSTILE[0]) / "tables").glob("*.tex"))
    inputs = "\n".join(f"\\input{{{path}}}\\clearpage" for path in tables)
    preamble = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs}"
    text = f"{preamble}\\begin{{document}}\n{inputs}\n\\end{{document}}\n"
    (tmp_path / "all.tex").write_text(text)
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "all.tex"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "root:" not in done.stdout


def test_labels_that_are_cut_stay_different() -> None:
    names = ["the same long beginning, one", "the same long beginning, two", "short", "short"]
    labels = short_labels(names, 12)
    assert len(set(labels)) == 4
    assert all(len(label) <= 12 for label in labels)
    assert short_labels(["a", "b"], 12) == ["a", "b"]
