"""``plora-cl report`` of real runs: the page, the figures and the tables."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from plora_cl.cli.main import main
from plora_cl.cli.report import report_parser
from plora_cl.cli.visualize import main as visualize
from plora_cl.cli.visualize import visualize_parser
from plora_cl.report.recorded.reading import read_run
from report.conftest import Page, Place, Report

FIGURES = {
    *("accuracy-matrix", "routed-accuracy-matrix", "accuracy-along-stream", "router-confusion"),
    *("training", "time-by-task", "bytes-by-task", "checkpoint-sizes"),
}


def results(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "results" / "final_results.json").read_bytes())
    return found


def test_a_report_is_a_page_and_its_figures_and_tables(written: Path) -> None:
    figures = {path.name for path in (written / "figures").iterdir()}
    assert figures == {f"{name}.{ending}" for name in FIGURES for ending in ("svg", "png")}
    tables = {path.stem for path in (written / "tables").glob("*.tex")}
    assert tables == {*FIGURES, "scores", "classes", "settings"}
    for path in (written / "figures").glob("*.svg"):
        assert ET.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        assert path.stat().st_size < 60_000
    for path in (written / "figures").glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_the_page_needs_nothing_else_and_runs_nothing(written: Path) -> None:
    page = Page(written / "report.html")
    assert not page.all("script") + page.all("link") + page.all("img") + page.all("iframe")
    assert "default-src 'none'" in str(page.all("meta"))
    places = [a.get(key) for _, a in page.elements for key in ("src", "href", "xlink:href")]
    assert all(place.startswith("#") for place in places if place is not None)
    assert not re.search(r"url\((?!#)|@import", page.source)


def test_each_chart_has_a_name_a_description_and_its_data(written: Path) -> None:
    page = Page(written / "report.html")
    identifiers = [a["id"] for _, a in page.elements if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    drawings = page.all("svg")
    assert len(drawings) == len(page.all("figure")) == len(FIGURES)
    for drawing in drawings:
        assert drawing["role"] == "img"
        assert drawing["aria-labelledby"] in identifiers
        assert drawing["aria-describedby"] in identifiers
    for tag, attributes in page.elements:
        for key, value in attributes.items():
            for name in re.findall(r"url\(#([^)]+)\)", value or ""):
                assert name in identifiers, (tag, key)
            if key.endswith("href"):
                assert value is not None
                assert value[1:] in identifiers
    data = [part for part in page.source.split("<figure ")[1:] if "<table>" in part]
    assert len(data) == len(FIGURES)


def test_the_scores_are_those_of_the_run(written: Path, finished: Path) -> None:
    found = results(finished)
    page = Page(written / "report.html")
    table = (written / "tables" / "accuracy-matrix.tex").read_text()
    matrix = found["accuracy_matrix"]
    assert isinstance(matrix, list)
    for row in matrix:
        cells = ["--" if value is None else f"{value:.3f}" for value in row]
        assert " & ".join(cells) + r" \\" in table
    routed = found["routed"]
    assert isinstance(routed, dict)
    assert f"{found['average_accuracy']:.3f}" in page.text
    assert f"{routed['average_accuracy']:.3f}" in page.text
    assert {"ewc", "olora"} <= set(re.findall(r">(\w+)</text>", page.source))


def test_the_same_run_gives_the_same_files(written: Path, finished: Path, report: Report) -> None:
    again = report(finished)
    for path in written.rglob("*.*"):
        other = again / path.relative_to(written)
        if path.name == "report.html":
            date = r"Written [^<]+ by"
            assert re.sub(date, "", path.read_text()) == re.sub(date, "", other.read_text())
        else:
            assert path.read_bytes() == other.read_bytes()


def test_a_run_in_progress_is_reported_with_what_it_learned_so_far(
    in_progress: Path, report: Report
) -> None:
    page = Page(report(in_progress) / "report.html")
    assert "This run has not ended: it is stopped in task 3 of 3 (food), epoch 1" in page.text
    assert "Scores are those after 2 tasks" in page.text
    run = read_run(in_progress)
    assert run.scores.learned == 2
    assert run.metrics["average_accuracy"] == run.scores.accuracy[1, :2].mean()
    assert run.log.steps == run.log.last["step"]
    assert run.costs.seconds["weather"]["train"] > 0


def test_the_log_alone_tells_the_scores_of_a_run_without_checkpoints(
    in_progress: Path, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(in_progress, tmp_path / "copy"))
    shutil.rmtree(copied / "checkpoints")
    with_both, from_log = read_run(in_progress).scores, read_run(copied).scores
    assert np.array_equal(with_both.accuracy, from_log.accuracy, equal_nan=True)
    assert np.array_equal(with_both.routed, from_log.routed, equal_nan=True)
    assert with_both.confusion == from_log.confusion


def test_the_checkpoint_alone_tells_the_scores_of_a_run_that_lost_its_log(
    in_progress: Path, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(in_progress, tmp_path / "copy"))
    (copied / "results" / "run_log.jsonl").unlink()
    found, expected = read_run(copied).scores, read_run(in_progress).scores
    assert np.array_equal(found.accuracy, expected.accuracy, equal_nan=True)
    assert found.confusion == expected.confusion


def test_a_finished_run_has_the_scores_that_its_log_and_checkpoints_tell(
    finished: Path, copy: Path
) -> None:
    (copy / "results" / "final_results.json").unlink()
    found, expected = read_run(copy), read_run(finished)
    assert np.array_equal(found.scores.accuracy, expected.scores.accuracy, equal_nan=True)
    assert found.metrics == expected.metrics
    assert found.average_f1 == expected.average_f1
    assert found.routed_accuracy == expected.routed_accuracy
    assert found.scores.confusion == expected.scores.confusion


def test_a_change_of_settings_is_marked_where_it_was_made(place: Place, report: Report) -> None:
    folder = place.cut("changed", after=13)
    place.learn("changed", lambda_ewc=50.0, accept=True)
    page = Page(report(folder) / "report.html")
    assert "resumed with other settings or from an earlier point (step 12)" in page.text
    assert "lambda_ewc 100.0 → 50.0" in page.text
    shutil.rmtree(folder / "results")
    assert [step for step, _ in read_run(folder).log.changes] == [12]  # from the manifest


def test_several_runs_are_compared_and_equal_names_are_repetitions(
    place: Place, finished: Path, report: Report
) -> None:
    other, plain = place.learn("other", seed=7), place.learn("plain", seed=7, use_ewc=False)
    page = Page(report(finished, other, plain, "--names", "EWC", "EWC", "plain") / "report.html")
    assert "3 runs of 2 methods; 3 of them have ended." in page.text
    assert "Difference in ACC to EWC" in page.text
    assert len(page.all("svg")) == 4 + 3 * len(FIGURES)
    identifiers = [a["id"] for _, a in page.elements if "id" in a]
    assert len(identifiers) == len(set(identifiers))


def test_experiments_are_compared_by_name(
    place: Place, finished: Path, in_progress: Path, tmp_path: Path
) -> None:
    arguments = ["--experiment-name", finished.name, "--compare-experiments", in_progress.name]
    arguments += ["--comparison-names", "half of it", "--experiment-dir", str(finished.parent)]
    arguments += ["--task-names", "Animals", "Weather", "Food", "--output-dir", str(tmp_path / "p")]
    assert visualize(arguments) == 0
    page = Page(tmp_path / "p" / "report.html")
    assert "half of it" in page.text
    assert "Weather" in page.text
    assert "in-progress has not ended: it is not in the statistics" in page.text


def test_the_files_are_listed_for_programs(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(finished), "--out", str(tmp_path / "out"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [Path(path).is_file() for path in [found["page"], *found["figures"], *found["tables"]]]
    assert len(found["figures"]) == 2 * len(FIGURES)


def test_another_report_in_the_same_folder_replaces_the_first(finished: Path) -> None:
    for _ in range(2):
        assert main(["report", str(finished)]) == 0
    assert (finished / "report" / "report.html").is_file()
    shutil.rmtree(finished / "report")


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["report", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert error.count("\n") == 1
    return error


def test_a_folder_without_a_run_is_refused_in_one_line(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "holds no run; expected the folder" in refusal(capsys, tmp_path)
    typo = finished.with_name("finishd")
    assert f"did you mean {finished}?" in refusal(capsys, typo)
    assert "name them one by one" in refusal(capsys, finished.parent)


def test_arguments_that_do_not_fit_are_refused_in_one_line(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--out", tmp_path / "out")
    assert "--names: 2 for 1 runs" in refusal(capsys, finished, *out, "--names", "a", "b")
    assert "2 names for the 3 tasks" in refusal(capsys, finished, *out, "--task-names", "a", "b")
    message = refusal(capsys, finished, *out, "--names", "ewc", "--baseline", "ewd")
    assert "unknown run" in message
    assert "ewc" in message
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_not_written_to(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    assert "holds no report.html" in refusal(capsys, finished, "--out", tmp_path)
    assert "is a file" in refusal(capsys, finished, "--out", tmp_path / "thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_missing_library_is_named_with_what_to_install(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    message = refusal(capsys, finished)
    assert "needs matplotlib and jinja2: pip install 'plora-cl[report]'" in message


@pytest.mark.parametrize("file", ["final_results.json", "computational_costs.json"])
@pytest.mark.parametrize("content", ["", "[1]", '{"accuracy_matrix": 3, "seconds": 3}', "{" * 9999])
def test_damaged_results_are_refused_in_one_line(
    copy: Path, file: str, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / "results" / file).write_text(content)
    message = refusal(capsys, copy)
    assert file in message
    assert "--resume" in message


def test_neither_help_nor_a_report_loads_torch(finished: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from plora_cl.cli.main import main; "
        f"code = main(['report', {str(finished)!r}, '--out', {str(tmp_path / 'out')!r}]); "
        "assert not {'torch', 'transformers'} & set(sys.modules); sys.exit(code)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize("parser", [report_parser(), visualize_parser()])
def test_the_help_fits_a_screen_and_ends_with_an_example(
    parser: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = parser.format_help()  # type: ignore[attr-defined]
    assert len(text.splitlines()) <= 24
    assert max(map(len, text.splitlines())) <= 80
    assert "example:" in text
