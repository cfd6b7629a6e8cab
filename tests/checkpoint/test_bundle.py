"""One checkpoint in one file: complete, verified, and safe to read."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from checkpoint.components import Holder, capture
from plora_cl.checkpoint.snapshot.codec import encode
from plora_cl.checkpoint.store.store import CheckpointEntry, CheckpointStore
from plora_cl.checkpoint.tools.bundle import export_bundle, import_bundle
from plora_cl.checkpoint.tools.bundle_archive import with_digest
from plora_cl.errors import (
    CheckpointError,
    CorruptCheckpointError,
    ExperimentExistsError,
    IncompatibleCheckpointError,
)
from plora_cl.evaluation.runlog import RunLog

NAME = "checkpoint_task1_epoch2_batch2.pt"


def make_checkpoint(folder: Path) -> CheckpointEntry:
    run_log = RunLog(folder / "results" / "run_log.jsonl")
    run_log.append({"step": 1})
    store = CheckpointStore(folder / "checkpoints")
    refs = {name: store.objects.put(name.encode() * 70) for name in ("base", "head")}
    parts = {"model": Holder(torch.arange(5.0))}
    snapshot = capture({**parts, "run_log": run_log}, objects=refs)
    run_log.append({"step": 2})
    run_log.sync()
    return store.commit(NAME, encode(snapshot))


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    out = tmp_path / "a.tar"
    export_bundle(make_checkpoint(tmp_path / "a"), out, config="seed: 1\n")
    return out


def read_back(file: Path, folder: Path) -> CheckpointEntry:
    return import_bundle(file, folder, config=lambda manifest: f"seed: {manifest.seed}\n")


def test_what_is_exported_is_imported_byte_for_byte(tmp_path: Path, exported: Path) -> None:
    entry = read_back(exported, tmp_path / "b")
    for path in (tmp_path / "a" / "checkpoints").rglob("*.*"):
        twin = tmp_path / "b" / path.relative_to(tmp_path / "a")
        assert twin.read_bytes() == path.read_bytes()
    assert entry.path.name == NAME
    log = tmp_path / "b" / "results" / "run_log.jsonl"
    assert log.read_bytes() == b'{"step": 1}\n'
    assert (tmp_path / "b" / "config.yaml").read_text() == "seed: 42\n"


def test_the_same_checkpoint_makes_the_same_file_and_tar_opens_it(
    tmp_path: Path, exported: Path
) -> None:
    entry = CheckpointEntry.at(tmp_path / "a" / "checkpoints" / NAME)
    export_bundle(entry, tmp_path / "again.tar", config="seed: 1\n")
    assert (tmp_path / "again.tar").read_bytes() == exported.read_bytes()
    with tarfile.open(exported) as archive:
        archive.extractall(tmp_path / "opened", filter="data")
    assert (tmp_path / "opened" / "checkpoints" / NAME).read_bytes() == entry.path.read_bytes()


@pytest.mark.fault
def test_every_flipped_bit_is_found_and_nothing_is_imported(tmp_path: Path, exported: Path) -> None:
    whole = exported.read_bytes()
    damaged = tmp_path / "damaged.tar"
    for position in range(0, len(whole), 7):
        data = bytearray(whole)
        data[position] ^= 1 << (position % 8)
        damaged.write_bytes(data)
        with pytest.raises(CorruptCheckpointError, match=r"damaged\.tar"):
            read_back(damaged, tmp_path / "b")
    assert not (tmp_path / "b").exists()


@pytest.mark.fault
def test_a_file_cut_off_or_extended_is_refused(tmp_path: Path, exported: Path) -> None:
    whole = exported.read_bytes()
    for data in (b"", whole[:100], whole[:-1], whole[: len(whole) // 2], whole + b"\0"):
        exported.write_bytes(data)
        with pytest.raises(CorruptCheckpointError):
            read_back(exported, tmp_path / "b")


def hostile(whole: bytes, change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]) -> bytes:
    """Return the archive with ``change`` applied to its members, and a digest that is right."""
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        members = [(m, archive.extractfile(m).read()) for m in archive]  # type: ignore[union-attr]
    members.pop()
    change(members)
    parts = []
    for info, data in members:
        parts += [info.tobuf(tarfile.GNU_FORMAT), data, bytes(-len(data) % 512)]
    return b"".join(with_digest(parts))


def renamed(name: str) -> Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        members[3][0].name = name

    return change


def typed(kind: bytes) -> Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        members[3][0].type = kind
        members[3][0].linkname = "/etc/passwd"

    return change


def listed(old: bytes, new: bytes) -> Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        info, data = members[0]
        assert old in data
        data = data.replace(old, new)
        info.size = len(data)
        members[0] = (info, data)

    return change


ATTACKS = {
    "climbs out": renamed("../../escaped"),
    "absolute": renamed("/tmp/escaped"),
    "symbolic link": typed(tarfile.SYMTYPE),
    "hard link": typed(tarfile.LNKTYPE),
    "device": typed(tarfile.CHRTYPE),
    "fifo": typed(tarfile.FIFOTYPE),
    "duplicate": lambda members: members.insert(3, members[3]),
    "stray": lambda members: members.append(members[1]),
    "missing": lambda members: members.__delitem__(3),
    "checkpoint climbs out": listed(NAME.encode(), b"../../escaped.pt"),
    "bomb": listed(b'"config_bytes": 8', b'"config_bytes": 99999999999999'),
    "huge log": listed(b'"run_log_bytes": 12', b'"run_log_bytes": 99999999999999'),
    "negative": listed(b'"run_log_bytes": 12', b'"run_log_bytes": -1'),
    "spaces": listed(b'"config_bytes": 8', b'"config_bytes":  8'),
    "other object": lambda members: members.__setitem__(3, (members[3][0], b"x" * 280)),
}


@pytest.mark.fault
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_file_made_to_deceive_is_refused_with_a_typed_error(
    tmp_path: Path, exported: Path, attack: str
) -> None:
    same = hostile(exported.read_bytes(), lambda members: None)
    assert same == exported.read_bytes()
    exported.write_bytes(hostile(exported.read_bytes(), ATTACKS[attack]))
    with pytest.raises(CheckpointError):
        read_back(exported, tmp_path / "deep" / "b")
    assert not list(tmp_path.rglob("escaped*"))
    assert not list((tmp_path / "deep").rglob("*.pt"))


def test_a_later_version_is_named(tmp_path: Path, exported: Path) -> None:
    later = listed(b'"format_version": 1', b'"format_version": 2')
    exported.write_bytes(hostile(exported.read_bytes(), later))
    with pytest.raises(CheckpointError, match="version 2"):
        read_back(exported, tmp_path / "b")


def test_a_folder_in_use_is_left_alone(tmp_path: Path, exported: Path) -> None:
    with pytest.raises(ExperimentExistsError, match="1 checkpoint:"):
        read_back(exported, tmp_path / "a")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep")
    with pytest.raises(ExperimentExistsError, match=r"mine\.txt"):
        read_back(exported, tmp_path / "notes")


@pytest.mark.fault
def test_a_damaged_object_is_not_exported(tmp_path: Path) -> None:
    entry = make_checkpoint(tmp_path / "a")
    path = next((tmp_path / "a" / "checkpoints" / "objects").iterdir())
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(CorruptCheckpointError, match="does not match its digest"):
        export_bundle(entry, tmp_path / "out.tar", config="")
    assert not list(tmp_path.glob("*.tar*"))
    assert not list(tmp_path.glob(".*"))


@pytest.mark.fault
def test_an_import_that_was_stopped_is_completed_by_the_next(
    tmp_path: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            CheckpointStore, "commit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            read_back(exported, tmp_path / "b")
    assert not CheckpointStore(tmp_path / "b" / "checkpoints").entries()
    assert read_back(exported, tmp_path / "b").path.exists()


def test_no_tensor_library_is_imported(tmp_path: Path, exported: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "import plora_cl.cli.checkpoints.branching\n"
        "from plora_cl.checkpoint.tools.bundle import export_bundle, import_bundle\n"
        "source, out = map(Path, sys.argv[1:])\n"
        "entry = import_bundle(source, out, config=lambda manifest: '')\n"
        "export_bundle(entry, out.with_suffix('.tar'), config='')\n"
        "assert not {'torch', 'numpy', 'safetensors', 'transformers'} & sys.modules.keys()\n"
    )
    argv = [sys.executable, "-c", program, str(exported), str(tmp_path / "b")]
    subprocess.run(argv, check=True, timeout=60)


def test_a_file_that_is_there_stays_unless_it_is_to_be_overwritten(
    tmp_path: Path, exported: Path
) -> None:
    entry = CheckpointEntry.at(tmp_path / "a" / "checkpoints" / NAME)
    before = exported.read_bytes()
    exported.write_bytes(b"something else")
    (tmp_path / "link.tar").symlink_to(tmp_path / "nowhere")
    for path in (exported, tmp_path / "link.tar"):
        with pytest.raises(CheckpointError, match=r"already exists: .*--overwrite"):
            export_bundle(entry, path, config="seed: 1\n")
    assert exported.read_bytes() == b"something else"
    export_bundle(entry, exported, config="seed: 1\n", overwrite=True)
    assert exported.read_bytes() == before


@pytest.mark.parametrize(
    "name",
    [
        f"checkpoints/{NAME}",
        "checkpoints/checkpoint_task9_epoch0_batch0.pt",
        "checkpoints/objects/a.tar",
        "results/run_log.jsonl",
        "config.yaml",
        "lineage.json",
        ".lock",
    ],
)
def test_no_file_of_an_experiment_is_replaced_by_an_export(
    tmp_path: Path, exported: Path, name: str
) -> None:
    entry = CheckpointEntry.at(tmp_path / "a" / "checkpoints" / NAME)
    (tmp_path / "a" / "config.yaml").write_text("seed: 1\n")
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for folder in (tmp_path / "a", tmp_path / "linked"):
        with pytest.raises(CheckpointError, match="keeps its own files: name a file elsewhere"):
            export_bundle(entry, folder / name, config="seed: 1\n", overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    export_bundle(entry, tmp_path / "a" / "a.tar", config="seed: 1\n")
    assert (tmp_path / "a" / "a.tar").read_bytes() == exported.read_bytes()


def test_no_folder_is_made_for_an_export(tmp_path: Path, exported: Path) -> None:
    entry = CheckpointEntry.at(tmp_path / "a" / "checkpoints" / NAME)
    with pytest.raises(CheckpointError, match="is not a folder: make it"):
        export_bundle(entry, tmp_path / "typo" / "b.tar", config="")
    with pytest.raises(CheckpointError, match="is not a file: name the file"):
        export_bundle(entry, tmp_path / "a", config="", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.tar"]


def test_settings_that_no_import_reads_are_not_exported(tmp_path: Path) -> None:
    entry, out = make_checkpoint(tmp_path / "a"), tmp_path / "out.tar"
    longest = "#" * (1 << 20)
    export_bundle(entry, out, config=longest)
    read_back(out, tmp_path / "b")
    out.unlink()
    with pytest.raises(IncompatibleCheckpointError, match="no import reads more than 1048576"):
        export_bundle(entry, out, config=longest + "#")
    assert not list(tmp_path.glob("out*"))
