"""Tables stay within the width of a terminal, or of 80 columns in a pipe."""

from __future__ import annotations

import pytest

from plora_cl.cli.tables import Table, show

NAMES = [f"experiment-{number:02}" for number in range(12)]


@pytest.mark.parametrize("width", [80, 40, 10])
def test_columns_that_do_not_fit_follow_in_further_tables_with_the_first_column(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    rows = [[task, *(f"0.{number:03}" for number in range(12))] for task in ("animals", "food")]
    show([Table("Accuracy", ("task", *NAMES), rows, NAMES, splits=True)])
    title, *lines = capsys.readouterr().out.splitlines()
    assert title == "Accuracy"
    heads = [line.split() for line in lines if "experiment" in line]
    assert [name for head in heads for name in head if name != "task"] == NAMES
    assert all(head[0] == "task" for head in heads)
    assert [line.split()[0] for line in lines].count("animals") == len(heads)
    fits = all(len(line) <= width for line in lines)
    assert fits or all(len(head) == 2 for head in heads)  # one column at least


def test_spare_columns_are_hidden_and_named_before_a_table_splits(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    columns = ("task", *NAMES[:3])
    show([Table("Accuracy", columns, [["animals", "1", "2", "3"]], spare=NAMES[2:3], splits=True)])
    out = capsys.readouterr().out
    assert f"Hidden (40 columns are too few): {NAMES[2]}; " in out
    assert out.count("animals") == 1
