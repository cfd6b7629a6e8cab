"""What a person sees of a run."""

from __future__ import annotations

import re
from contextlib import suppress
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from plora_cl.cli.pace import Pace, clock_time
from plora_cl.cli.progress import PlainReporter, QuietReporter, reporter_for
from plora_cl.cli.progress_bar import BarReporter
from plora_cl.training.reporting import Reporter, StepReport, TaskScore
from plora_cl.units import Unit


class FakeClock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run_steps(reporter: Reporter, clock: FakeClock, steps: int, *, seconds: float) -> None:
    for batch in range(steps):
        clock.now += seconds
        reporter.step(StepReport(0, 0, 3, batch, 100, 0.5, 16))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class TestPace:
    def test_speed_is_examples_over_the_time_of_steps(self, clock: FakeClock) -> None:
        pace = Pace(clock)
        pace.begin(10)
        for _ in range(4):
            clock.now += 0.5
            pace.step(8)
        assert pace.examples_per_second == 16.0
        assert pace.seconds_left == 3.0

    def test_what_happens_between_steps_does_not_count(self, clock: FakeClock) -> None:
        pace = Pace(clock)
        pace.begin(2)
        clock.now += 1
        pace.step(8)
        clock.now += 1000
        pace.pause()
        clock.now += 1
        pace.step(8)
        assert pace.examples_per_second == 8.0
        assert pace.seconds_left == 0.0

    def test_nothing_is_known_at_first(self, clock: FakeClock) -> None:
        pace = Pace(clock)
        pace.begin(10)
        assert (pace.examples_per_second, pace.seconds_left) == (0.0, 0.0)

    @pytest.mark.parametrize(
        ("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3725, "1:02:05")]
    )
    def test_durations_read_as_hours_minutes_seconds(self, seconds: float, text: str) -> None:
        assert clock_time(seconds) == text


class TestPlainLines:
    def test_a_line_comes_at_most_every_interval(self, clock: FakeClock) -> None:
        out = StringIO()
        reporter = PlainReporter(out, clock=clock, interval=10)
        reporter.task_started(0, 5, "news", 300)
        run_steps(reporter, clock, 25, seconds=1)
        assert out.getvalue().splitlines() == [
            "Task 1 of 5: news, 300 steps to go",
            "news: epoch 1/3, batch 10/100, loss 0.5000, 16.0 examples/s, 0:04:50 left",
            "news: epoch 1/3, batch 20/100, loss 0.5000, 16.0 examples/s, 0:04:40 left",
        ]

    def test_a_task_that_goes_on_says_how_much_of_it_is_left(self, clock: FakeClock) -> None:
        out = StringIO()
        PlainReporter(out, clock=clock).task_started(0, 1, "news", 100, 200)
        assert out.getvalue() == "Task 1 of 1: news, 100 of 300 steps to go\n"

    def test_one_step_is_counted_as_one(self) -> None:
        out = StringIO()
        reporter = PlainReporter(out)
        reporter.task_started(0, 1, "news", 1)
        reporter.task_started(0, 1, "news", 1, 2)
        assert out.getvalue() == (
            "Task 1 of 1: news, 1 step to go\nTask 1 of 1: news, 1 of 3 steps to go\n"
        )

    def test_the_end_of_an_epoch_always_gets_a_line(self, clock: FakeClock) -> None:
        out = StringIO()
        reporter = PlainReporter(out, clock=clock)
        reporter.task_started(0, 1, "news", 200)
        run_steps(reporter, clock, 100, seconds=0.01)
        (line,) = out.getvalue().splitlines()[1:]
        assert "epoch 1/3, batch 100/100" in line

    def test_long_measurements_show_how_far_they_are(self, clock: FakeClock) -> None:
        out = StringIO()
        reporter = PlainReporter(out, clock=clock, interval=10)
        for done in range(1, 25):
            clock.now += 1
            reporter.activity(Unit("evaluation on news", done, 24))
        assert out.getvalue().splitlines() == [
            "evaluation on news: 10/24",
            "evaluation on news: 20/24",
        ]

    def test_time_spent_on_measuring_does_not_slow_the_pace(self, clock: FakeClock) -> None:
        out = StringIO()
        reporter = PlainReporter(out, clock=clock)
        reporter.task_started(0, 1, "a", 20)
        run_steps(reporter, clock, 1, seconds=1)
        clock.now += 500
        reporter.activity(Unit("validation on a", 1, 1))
        run_steps(reporter, clock, 10, seconds=1)
        assert "16.0 examples/s" in out.getvalue().splitlines()[-1]

    def test_scores_are_per_cents_and_missing_ones_are_dashes(self, clock: FakeClock) -> None:
        out = StringIO()
        reporter = PlainReporter(out, clock=clock)
        reporter.task_started(1, 2, "b", 3)
        scores = {"a": TaskScore(0.9126, 0.5, 0.95), "b": TaskScore(None, None, 0.25)}
        reporter.task_finished(scores)
        assert out.getvalue().splitlines()[1] == (
            "Task 2 of 2 learned. Accuracy (macro-F1; share of the largest class): "
            "a 91.3% (50.0%; 95.0%), b - (-; 25.0%)"
        )

    def test_a_table_is_aligned(self, clock: FakeClock) -> None:
        out = StringIO()
        PlainReporter(out, clock=clock).table(
            "Accuracy", ["task", "news", "x"], [["news", "91.3", "1"], ["a", "-", "100"]]
        )
        assert out.getvalue().splitlines() == [
            "Accuracy",
            "task  news    x",
            "───────────────",
            "news  91.3    1",
            "a        -  100",
        ]

    def test_every_line_is_flushed(self, clock: FakeClock) -> None:
        flushed: list[str] = []

        class Log(StringIO):
            def flush(self) -> None:
                flushed.append(self.getvalue())

        position = "step 8, task 1 in training"
        PlainReporter(Log(), clock=clock).checkpoint_saved(Path("runs/a.pt"), position)
        assert flushed == ["Checkpoint saved: a.pt (step 8, task 1 in training)\n"]


class TestBar:
    def draw(self, clock: FakeClock, width: int = 120) -> str:
        """Run half a task and return everything that was drawn."""
        out = StringIO()
        console = Console(file=out, force_terminal=True, width=width, color_system=None)
        with BarReporter(console, clock=clock) as reporter:
            reporter.task_started(0, 5, "news [a]", 300)
            run_steps(reporter, clock, 150, seconds=1)
            reporter._progress.refresh()
            reporter.activity(Unit("evaluation on news", 1, 2))
            reporter._progress.refresh()
            reporter.message("Checkpoint saved: /a/[very]/" + "long" * 40)
            reporter.activity(Unit("evaluation on news", 2, 2))
            reporter.task_finished({"news [a]": TaskScore(0.5, 0.25, 0.5)})
            reporter.table("Accuracy", ["task", "x"], [["news [a]", "50.0"]])
        return out.getvalue()

    def test_it_shows_task_epoch_loss_speed_and_time_left(self, clock: FakeClock) -> None:
        drawn = self.draw(clock)
        assert "Task 1/5 news [a]" in drawn
        assert "150/300" in drawn
        assert "epoch 1/3  loss 0.5000  16.0 examples/s  0:02:30 left" in drawn
        assert "evaluation on news" in drawn

    def test_time_spent_on_measuring_does_not_slow_the_pace(self, clock: FakeClock) -> None:
        console = Console(file=StringIO(), force_terminal=True, width=120)
        with BarReporter(console, clock=clock) as bar:
            bar.task_started(0, 1, "a", 10)
            run_steps(bar, clock, 1, seconds=1)
            clock.now += 500
            bar.activity(Unit("validation on a", 1, 1))
            run_steps(bar, clock, 1, seconds=1)
            (task,) = bar._progress.tasks
            assert "16.0 examples/s" in task.fields["details"]

    def test_a_narrow_terminal_still_gets_one_line_a_bar(self, clock: FakeClock) -> None:
        drawn = self.draw(clock, width=60)
        assert all(len(line) < 61 or "Checkpoint" in line for line in visible_lines(drawn))

    @pytest.mark.parametrize("width", [60, 80, 100, 200])
    @pytest.mark.parametrize("name", ["news", "a-task-with-quite-a-long-name-for-a-line"])
    def test_there_is_a_bar_at_every_width(self, clock: FakeClock, width: int, name: str) -> None:
        out = StringIO()
        console = Console(file=out, force_terminal=True, width=width, color_system=None)
        with BarReporter(console, clock=clock) as reporter:
            reporter.task_started(0, 5, name, 300)
            run_steps(reporter, clock, 150, seconds=1)
            reporter._progress.refresh()
        shown = [line for line in visible_lines(out.getvalue()) if "150/300" in line]
        assert shown[-1].count("\N{BOX DRAWINGS HEAVY HORIZONTAL}") >= 5
        assert "left" in shown[-1]
        assert len(shown[-1]) <= width
        assert ("examples/s" in shown[-1]) == (width == 200 or (width >= 100 and name == "news"))

    @pytest.mark.parametrize("width", [60, 80, 100, 200])
    def test_what_is_measured_meanwhile_leaves_the_counts_whole(
        self, clock: FakeClock, width: int
    ) -> None:
        out = StringIO()
        console = Console(file=out, force_terminal=True, width=width, color_system=None)
        with BarReporter(console, clock=clock) as reporter:
            reporter.task_started(0, 5, "news", 300)
            run_steps(reporter, clock, 150, seconds=1)
            reporter.activity(Unit("Fisher information of a task with a long name", 35, 400))
            reporter._progress.refresh()
        drawn = visible_lines(out.getvalue())
        for count in ("150/300", "35/400"):
            line = [line for line in drawn if count in line][-1]
            assert line.count("\N{BOX DRAWINGS HEAVY HORIZONTAL}") >= 1
            assert len(line) <= width

    def test_scores_of_many_tasks_are_broken_between_words(self, clock: FakeClock) -> None:
        out = StringIO()
        console = Console(file=out, force_terminal=True, width=60, color_system=None)
        scores = {f"task-{k}": TaskScore(0.6543, 0.5432, 0.4321) for k in range(5)}
        with BarReporter(console, clock=clock) as reporter:
            reporter.task_started(4, 5, "task-4", 1)
            reporter.task_finished(scores)
        lines = visible_lines(out.getvalue())
        assert max(map(len, lines)) <= 60
        assert sum(line.count("65.4%") for line in lines) == 5

    def test_a_task_that_goes_on_shows_all_of_it(self, clock: FakeClock) -> None:
        console = Console(file=StringIO(), force_terminal=True, width=120)
        with BarReporter(console, clock=clock) as bar:
            bar.task_started(0, 1, "a", 100, 200)
            run_steps(bar, clock, 10, seconds=1)
            (task,) = bar._progress.tasks
            assert (task.completed, task.total) == (210, 300)
            assert "0:01:30 left" in task.fields["details"]

    def test_messages_stay_whole_and_are_taken_literally(self, clock: FakeClock) -> None:
        assert "Checkpoint saved: /a/[very]/" + "long" * 40 + "\n" in self.draw(clock)

    def test_scores_and_tables_stay_on_the_screen(self, clock: FakeClock) -> None:
        lines = visible_lines(self.draw(clock))
        (line,) = (line for line in lines if line.startswith("Task 1 of 5 learned. Accuracy"))
        assert line.endswith(": news [a] 50.0% (25.0%; 50.0%)")
        assert "news [a]  50.0" in lines

    def test_a_task_that_goes_on_begins_a_new_bar(self, clock: FakeClock) -> None:
        out = StringIO()
        with BarReporter(Console(file=out, force_terminal=True, width=120), clock=clock) as bar:
            bar.task_started(0, 2, "a", 10)
            bar.task_started(1, 2, "b", 20)
            assert [task.description for task in bar._progress.tasks] == ["Task 2/2 b"]

    def test_the_terminal_is_restored_after_an_error(self, clock: FakeClock) -> None:
        out = StringIO()
        console = Console(file=out, force_terminal=True, width=120)
        with suppress(ZeroDivisionError), BarReporter(console, clock=clock) as bar:
            bar.task_started(0, 2, "a", 10)
            raise ZeroDivisionError
        assert out.getvalue().rfind("\x1b[?25h") > out.getvalue().rfind("\x1b[?25l")


def visible_lines(drawn: str) -> list[str]:
    """Return the lines without the sequences that move the cursor."""
    return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", line).rstrip() for line in drawn.splitlines()]


class TestChoice:
    def test_a_terminal_gets_the_bar(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes stdout for a terminal
        monkeypatch.setenv("TERM", "xterm")
        assert isinstance(reporter_for(), BarReporter)

    def test_a_dumb_terminal_gets_lines(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "dumb")
        with reporter_for() as reporter:
            assert isinstance(reporter, PlainReporter)

    def test_a_file_gets_lines(self) -> None:
        with reporter_for() as reporter:  # pytest captures stdout
            assert isinstance(reporter, PlainReporter)

    def test_quiet_gets_results_alone(self) -> None:
        with reporter_for(quiet=True) as reporter:
            assert isinstance(reporter, QuietReporter)
