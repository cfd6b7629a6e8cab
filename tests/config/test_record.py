"""Which settings an experiment goes on with, when its config.yaml is lost or not of its branch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from checkpoint.samples import archive, manifest, seal
from plora_cl.checkpoint.format.trajectory import Trajectory
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.config.precedence import dump, resolve, validate
from plora_cl.config.record import record
from plora_cl.config.schema import Settings
from plora_cl.errors import CorruptCheckpointError

NAME = "checkpoint_task0_epoch0_batch{}.pt"


def save(folder: Path, batch: int, *, branch: int, **settings: Any) -> CheckpointEntry:
    described = manifest(trajectory=Trajectory("0" * 64, branch))
    object.__setattr__(described, "settings", resolved(folder, **settings).model_dump(mode="json"))
    store = CheckpointStore(folder / "checkpoints")
    return store.commit(NAME.format(batch), seal(archive(), described))


def resolved(folder: Path, **settings: Any) -> Settings:
    return validate(
        {"experiment_dir": str(folder.parent), "experiment_name": folder.name, **settings}
    )


def write_record(folder: Path, *, branch: int, **settings: Any) -> Path:
    path = folder / "config.yaml"
    path.write_bytes(record(dump(resolved(folder, **settings)), branch=branch))
    return path


def seed(folder: Path, *, config: Path | None = None, resume: Any = "auto") -> int:
    place = {"experiment_dir": str(folder.parent), "experiment_name": folder.name}
    flags: dict[str, tuple[str, object]] = {name: (f"--{name}", v) for name, v in place.items()}
    if config is not None or resume not in (True, "auto"):
        flags = {}
    return resolve(config=config, flags=flags, resume=resume).settings.seed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an experiment that began another branch, with seed 8, after its second checkpoint."""
    folder = tmp_path / "x"
    save(folder, 1, branch=0, seed=7)
    save(folder, 2, branch=1, seed=8)
    return folder


def test_a_lost_record_is_replaced_by_the_checkpoint(folder: Path) -> None:
    for resume in (True, "auto"):
        assert seed(folder, resume=resume) == 8
        assert seed(folder, resume=resume, config=folder / "config.yaml") == 8
    assert seed(folder, resume=str(folder / "checkpoints" / NAME.format(1))) == 7


def test_a_lost_record_and_damaged_checkpoints_are_no_defaults(folder: Path) -> None:
    entries = CheckpointStore(folder / "checkpoints").entries()
    entries[1].path.write_bytes(b"damaged")
    assert seed(folder) == 7
    entries[0].path.write_bytes(b"damaged")
    with pytest.raises(CorruptCheckpointError, match="every checkpoint"):
        seed(folder)


def test_a_record_of_the_branch_is_what_counts(folder: Path) -> None:
    config = write_record(folder, branch=1, seed=9)
    assert (seed(folder), seed(folder, config=config)) == (9, 9)


def test_a_record_of_an_older_branch_gives_way_to_the_checkpoint(folder: Path) -> None:
    config = write_record(folder, branch=0, seed=7)
    assert (seed(folder), seed(folder, config=config)) == (8, 8)
    (folder / "checkpoints" / NAME.format(2)).rename(folder / "checkpoints" / "aside")
    assert (seed(folder), seed(folder, config=config)) == (7, 7)


@pytest.mark.fault
def test_a_damaged_checkpoint_does_not_bring_back_the_settings_before_its_branch(
    folder: Path,
) -> None:
    config = write_record(folder, branch=1, seed=8)
    (folder / "checkpoints" / NAME.format(2)).write_bytes(b"damaged")
    assert (seed(folder), seed(folder, config=config)) == (8, 8)
    config = write_record(folder, branch=0, seed=6)  # of the branch of what is left
    assert (seed(folder), seed(folder, config=config)) == (6, 6)


def test_a_record_that_was_edited_is_what_somebody_wants(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = write_record(folder, branch=0, seed=7)
    config.write_text(config.read_text().replace("seed: 7", "seed: 70"))
    for given in (None, config):
        assert seed(folder, config=given) == 70
        (warning,) = caplog.messages
        assert warning.startswith(f"{config} was edited, or damaged")
        caplog.clear()
    config.write_text(dump(resolved(folder, seed=71)))  # without a header, as by an older version
    assert (seed(folder), seed(folder, config=config)) == (71, 71)
    assert caplog.text == ""


def test_what_a_record_that_was_cut_off_does_not_say_is_as_it_was(folder: Path) -> None:
    whole = write_record(folder, branch=1, seed=9).read_bytes()
    for left in (0, 40, whole.index(b"seed:"), whole.index(b"\n", whole.index(b"seed:")) + 1):
        (folder / "config.yaml").write_bytes(whole[:left])
        said = 9 if b"seed: 9" in whole[:left] else 8
        for config in (None, folder / "config.yaml"):
            assert seed(folder, config=config) == said
    (folder / "config.yaml").write_bytes(b"")
    assert seed(folder, resume=str(folder / "checkpoints" / NAME.format(1))) == 7


def test_a_checkpoint_that_is_named_brings_the_settings_of_its_branch(folder: Path) -> None:
    config = write_record(folder, branch=1, seed=8)
    store = CheckpointStore(folder / "checkpoints")
    aside = store.entries()[0].path.rename(store.directory / f"{NAME.format(1)}.branch0")
    assert seed(folder, resume=str(aside)) == 7
    assert seed(folder, resume=str(aside), config=config) == 7


def test_the_header_is_a_comment_to_everybody_else(folder: Path) -> None:
    config = write_record(folder, branch=3, seed=5)
    assert config.read_text().startswith("# Settings of branch 3; SHA-256 of what follows: ")
    assert resolve(config=config).settings.seed == 5
