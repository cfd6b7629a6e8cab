"""From the results of runs to tables, and what may not be compared."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from plora_cl.config.schema import identity
from plora_cl.errors import StudyError
from plora_cl.study.plan import PlannedRun
from plora_cl.study.records import Record, record
from plora_cl.study.run_folder import results_of
from plora_cl.study.summary import RATIO, Group, markdown, summarised, write_summary
from study.conftest import Planned, finish

ACCURACY = {"plain": [0.5, 0.6, 0.7, 0.8], "ewc": [0.6, 0.8, 0.7, 0.9]}


def measured(run: PlannedRun, **results: Any) -> Record:
    finish(run, **results)
    found = results_of(run)
    assert found is not None
    return record(run, found)


@pytest.fixture
def records(planned: Planned) -> list[Record]:
    left = {method: list(values) for method, values in ACCURACY.items()}
    return [measured(run, accuracy=left[run.method].pop(0)) for run in planned()]


def group(groups: list[Group], method: str, metric: str, variant: str = "") -> Group:
    (found,) = [g for g in groups if (g.method, g.variant, g.metric) == (method, variant, metric)]
    return found


def test_orders_are_what_is_compared_each_the_mean_over_its_seeds(
    records: list[Record],
) -> None:
    found = group(summarised(records, "plain"), "ewc", "average_accuracy")
    assert (found.runs, found.estimate.n, found.unit) == (4, 2, "order")
    assert found.estimate.mean == pytest.approx(0.75)
    assert found.estimate.sd == pytest.approx(0.2 / 2**0.5)  # of 0.65 and 0.85
    assert found.comparison is not None
    assert (found.pairs, found.comparison.difference.n, found.pair_unit) == (4, 2, "order")
    assert found.comparison.difference.mean == pytest.approx(0.1)
    assert found.comparison.difference.sd == pytest.approx(0.1 / 2**0.5)  # of 0.05 and 0.15


def test_in_one_order_seeds_are_compared_and_the_table_says_for_which_it_holds(
    planned: Planned,
) -> None:
    left = {method: list(values) for method, values in ACCURACY.items()}
    runs = planned(orders={"aw": ["a", "w"]}, seeds=[1, 2, 3, 4])
    records = [measured(run, accuracy=left[run.method].pop(0)) for run in runs]
    groups = summarised(records, "plain")
    found = group(groups, "ewc", "average_accuracy")
    assert (found.runs, found.estimate.n, found.unit) == (4, 4, "seed")
    assert found.comparison is not None
    assert found.comparison.difference.sd == pytest.approx((0.02 / 3) ** 0.5)
    table = markdown(groups, "plain")
    assert "| ewc | - | 4 | 4 seeds | 0.7500 ± " in table
    assert "Unit seed: one value for each seed; it holds for this order alone." in table
    assert "Unit order" not in table


def test_pairs_have_the_same_order_and_seed_in_any_sequence(
    records: list[Record],
) -> None:
    straight = group(summarised(records, "plain"), "ewc", "average_accuracy").comparison
    turned = group(summarised(records[::-1], "plain"), "ewc", "average_accuracy").comparison
    assert straight is not None
    assert turned is not None
    assert turned.difference.sd == pytest.approx(straight.difference.sd)


def test_a_run_without_partner_counts_for_the_mean_but_not_for_the_comparison(
    records: list[Record],
) -> None:
    alone = [one for one in records if one.run.method == "ewc" or one.run.seed == 1]
    found = group(summarised(alone, "plain"), "ewc", "average_accuracy")
    assert found.runs == 4
    assert found.comparison is not None
    assert found.pairs == 2


def test_without_baseline_nothing_is_compared(records: list[Record]) -> None:
    assert all(g.comparison is None for g in summarised(records, None))
    assert "ratio" not in markdown(summarised(records, None), None)


def test_a_variant_is_compared_with_the_baseline_of_the_same_variant(planned: Planned) -> None:
    variants = {"isolated": {"composition": "isolated"}, "sum": {"composition": "cumulative"}}
    accuracy = {"plain isolated": 0.5, "plain sum": 0.4, "ewc isolated": 0.6, "ewc sum": 0.8}
    records = [
        measured(run, accuracy=accuracy[f"{run.method} {run.variant}"])
        for run in planned(variants=variants)
    ]
    found = group(summarised(records, "plain"), "ewc", "average_accuracy", "sum")
    assert found.comparison is not None
    assert found.comparison.difference.mean == pytest.approx(0.4)


def test_a_variant_is_compared_with_a_baseline_that_has_none(planned: Planned) -> None:
    variants = {"weak": {"lambda_ewc": 1.0}, "strong": {"lambda_ewc": 1000.0}}
    records = [
        measured(run, accuracy=0.9 if run.method == "ewc" else 0.6)
        for run in planned(variants=variants)
    ]
    found = group(summarised(records, "plain"), "ewc", RATIO, "weak")
    assert found.estimate.mean == pytest.approx(1.5)


def test_runs_without_validation_texts_are_compared_like_others(planned: Planned) -> None:
    tasks = [{"name": "a", "validation": 0}, {"name": "w", "validation": 0}]
    records = [measured(run, tasks=tasks) for run in planned(orders={"aw": ["a", "w"]})]
    assert group(summarised(records, "plain"), "ewc", "average_accuracy").pairs == 2


def test_metrics_that_contradict_one_another_are_refused(planned: Planned) -> None:
    with pytest.raises(StudyError, match=r"average accuracy 0\.8 is not learning accuracy 0\.9"):
        measured(planned()[0], learning_accuracy=0.9, backward_transfer=-0.1)
    measured(planned()[0], learning_accuracy=0.9, backward_transfer=-0.2)  # 0.9 - 1/2 * 0.2


def test_runs_that_learned_from_other_examples_are_not_compared(planned: Planned) -> None:
    plain, ewc = planned(seeds=[1], orders={"a": ["a"]})
    for run in (plain, ewc):
        finish(run)
    path = ewc.folder / "results" / "final_results.json"
    content = json.loads(path.read_text())
    content["identity"]["data"][0]["train"] = "other texts"
    path.write_text(json.dumps(content))
    records = [record(run, results_of(run) or {}) for run in (plain, ewc)]
    with pytest.raises(StudyError, match="different train examples of the task 'a'"):
        summarised(records, None)


def test_runs_whose_settings_pick_other_examples_are_no_pair(planned: Planned) -> None:
    runs = planned(
        methods=["plain", {"more": {"like": "plain", "max_train_examples": 9}}, "tfidf"],
        variants={"short": {"max_length": 8}, "long": {"max_length": 16}},
        seeds=[1],
        orders={"a": ["a"]},
    )
    records = [
        measured(run, identity=with_data(run, f"{run.variant} {run.method}")) for run in runs
    ]
    groups = summarised(records, "tfidf")
    pairs = {
        (g.method, g.variant): g.comparison is not None
        for g in groups
        if g.metric == "average_accuracy" and g.method != "tfidf"
    }
    assert pairs == {
        ("plain", "short"): True,
        ("plain", "long"): True,
        ("more", "short"): False,
        ("more", "long"): False,
    }


def with_data(run: PlannedRun, digest: str) -> dict[str, Any]:
    """Return what results say of their settings and their examples."""
    return {**identity(run.settings), "data": [{"name": "a", "train": digest, "test": digest}]}


def test_files_hold_every_run_and_every_metric(records: list[Record], tmp_path: Path) -> None:
    groups = summarised(records, "plain")
    write_summary(tmp_path, records, groups, {"name": "four"}, "plain")
    with (tmp_path / "runs.csv").open(newline="") as file:
        runs = list(csv.DictReader(file))
    assert [row["run"] for row in runs] == [one.run.name for one in records]
    assert [float(row["accuracy on a"]) for row in runs] == [
        one.values["accuracy on a"] for one in records
    ]
    assert [float(row["ratio_to_baseline"]) for row in runs if row["method"] == "ewc"] == [
        pytest.approx(mine / theirs)
        for mine, theirs in zip(ACCURACY["ewc"], ACCURACY["plain"], strict=True)
    ]
    with (tmp_path / "summary.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    (line,) = [x for x in lines if (x["method"], x["metric"]) == ("ewc", "average_accuracy")]
    assert float(line["difference_mean"]) == pytest.approx(0.1)
    assert float(line["permutation_p"]) == 0.5
    assert (line["runs"], line["unit"], line["n"]) == ("4", "order", "2")
    assert (line["pairs"], line["pair_unit"], line["difference_n"]) == ("4", "order", "2")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["name"] == "four"
    assert len(summary["runs"]) == 8
    assert len(summary["groups"]) == len(lines)
    table = (tmp_path / "summary.md").read_text()
    assert "| ewc | - | 4 | 2 orders | 0.7500 ± " in table
    assert "Unit order: one value for each order, the mean over its seeds" in table


def test_what_is_zero_by_construction_is_marked_in_every_file(
    planned: Planned, tmp_path: Path
) -> None:
    reason = {"backward_transfer": "nothing is shared", "forgetting": "nothing is shared"}
    records = [measured(run, zero_by_construction=reason) for run in planned(methods=["plain"])]
    write_summary(tmp_path, records, summarised(records, None), {}, None)
    table = (tmp_path / "summary.md").read_text()
    assert "| 0* | 0* |" in table
    assert "0*: zero by construction: nothing is shared." in table
    assert "backward_transfer; forgetting" in (tmp_path / "runs.csv").read_text()
    assert "nothing is shared" in (tmp_path / "summary.csv").read_text()
    assert "nothing is shared" in (tmp_path / "summary.json").read_text()
