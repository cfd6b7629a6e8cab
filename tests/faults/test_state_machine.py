"""G: any sequence of saves, finished tasks, clean-ups, kills and power cuts, against a dict."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from checkpoint.samples import sealed
from checkpoint.simulated_disk import KilledError, SimulatedDisk, kill_after, nothing
from plora_cl.checkpoint.format.naming import checkpoint_name
from plora_cl.checkpoint.store.retention import collect_garbage, rotate
from plora_cl.checkpoint.store.store import CheckpointStore

HOME = Path("/experiments/run/checkpoints")
KEEP = 2


class Experiment(RuleBasedStateMachine):
    """The model is ``promised``: what each acknowledged checkpoint may contain, by name.

    A save that was interrupted adds to what is allowed and promises nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.disk = SimulatedDisk()
        self.store = CheckpointStore(HOME, self.disk)
        self.task = self.batch = self.saves = 0
        self.promised: dict[str, set[str]] = {}
        self.possible: dict[str, set[str]] = {}

    def _save(self, phase: str) -> None:
        name, note = checkpoint_name(self.task, 0, self.batch), f"save {self.saves}"
        self.saves += 1
        self.possible.setdefault(name, set()).add(note)
        if name in self.promised:
            self.promised[name].add(note)
        texts = ("base", f"task {self.task}", *(["scratch"] if self.batch % 2 else []))
        refs = {text: self.store.objects.put(text.encode()) for text in texts}
        data = sealed(note=note, objects=refs, task=self.task, phase=phase)
        entry = self.store.commit(name, data)
        self.promised[name] = self.possible[name] = {note}
        going = self._going()
        for gone in going:
            self.promised.pop(gone, None)  # from here on it may go; until the end it may be there
        rotate(self.store, entry, KEEP)
        for gone in going:
            self.possible.pop(gone)
        collect_garbage(self.store)

    def _going(self) -> list[str]:
        """Return what leaves: all but the last of earlier tasks, all but KEEP of this one."""
        visible = {entry.path.name for entry in self.store.entries()}
        going = []
        for task in range(self.task + 1):
            names = [checkpoint_name(task, 0, batch) for batch in range(self.batch + 1)]
            kept = KEEP if task == self.task else 1
            going += [name for name in names if name in visible][:-kept]
        return going

    @rule(steps=st.integers(0, 3))
    def save(self, steps: int) -> None:
        self.batch += steps
        self._save("train")

    @rule()
    def finish_task(self) -> None:
        self._save("done")
        self.task += 1

    @rule()
    def clean_up(self) -> None:
        collect_garbage(self.store)

    @rule()
    def reopen(self) -> None:
        self.store = CheckpointStore(HOME, self.disk)

    @rule(operation=st.integers(0, 40), power=st.booleans(), data=st.data())
    def be_interrupted_while_saving(self, operation: int, power: bool, data: st.DataObject) -> None:
        self.batch += 1
        self.disk.before_operation = kill_after(operation)
        with suppress(KilledError):
            self._save("train")
        self.disk.before_operation = nothing
        if power:
            images = list(self.disk.after_power_cut())
            image = images[data.draw(st.integers(0, len(images) - 1))]
            self.disk = SimulatedDisk.holding(image)
        self.reopen()

    @invariant()
    def every_checkpoint_is_whole_and_each_promise_kept(self) -> None:
        found: dict[str, str] = {}
        store = CheckpointStore(HOME, self.disk)
        for entry in store.entries():
            store.read(entry)
            manifest = store.manifest(entry)
            for text, ref in manifest.objects.items():
                assert store.objects.get(ref) == text.encode()
            found[entry.path.name] = manifest.settings["note"]
        for name, allowed in self.promised.items():
            assert found[name] in allowed
        for name, note in found.items():
            assert note in self.possible.get(name, set()), f"{name} came back as {note}"


TestExperiment = Experiment.TestCase
TestExperiment.settings = settings(
    max_examples=150,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
