"""Whatever a file holds, a command ends with an exit code and one line, never with a traceback."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from plora_cl.checkpoint.format import sealed_zip, torch_archive
from plora_cl.checkpoint.format.manifest import Manifest
from plora_cl.checkpoint.snapshot.codec import decode
from plora_cl.checkpoint.store.run_log import LINEAGE
from plora_cl.checkpoint.store.store import CheckpointStore
from plora_cl.cli.checkpoints.main import main
from plora_cl.state_digest import state_digest

DEMO = "experiments/demo"
NEWEST = f"{DEMO}/checkpoints/checkpoint_task0_epoch0_batch19.pt"
COMMANDS = [
    ["list", DEMO], ["list", DEMO, "--json"], ["verify", DEMO], ["gc", DEMO, "--dry-run"],
    ["inspect", DEMO, "--tensors"], ["inspect", DEMO, "--json"],
    ["diff", DEMO, f"{DEMO}@checkpoint_task0_epoch0_batch9.pt"],
    ["pin", NEWEST], ["unpin", NEWEST], ["fork", DEMO, "forked"],
    ["export", DEMO, "--out", "out.tar"],
]  # fmt: skip
IMPORT = ["import", "a.tar", "imported"]
ODD: tuple[Any, ...] = (
    None,
    True,
    [],
    {},
    "",
    "\x1b[2J\n",
    -1,
    1 << 70,
    10**700,
    1.5,
    [[[[]]]],
    {"a": [None]},
)
NOT_JSON = (float("nan"), float("inf"), {1: 2, "a": 3})


@pytest.fixture
def whole(experiment: CheckpointStore) -> Path:
    """Return an experiment with each kind of file that commands read, and an exported one."""
    folder = experiment.directory.parent
    (folder / LINEAGE).write_text(json.dumps({"parent": "x", "changed": {}}))
    (folder / ".lock").write_text(
        json.dumps({"host": "h", "pid": 1, "boot_id": "", "process_started": 0, "since": "s"})
    )
    (folder / "replaced.json").write_text(json.dumps({"checkpoints": {}}))
    assert main(["export", DEMO, "--out", "a.tar"]) == 0
    return folder


def run(commands: list[list[str]], about: object, capsys: pytest.CaptureFixture[str]) -> list[int]:
    """Run each command; return the exit codes."""
    codes = []
    for argv in commands:
        for made in ("forked", "imported"):
            shutil.rmtree(made, ignore_errors=True)
        Path("out.tar").unlink(missing_ok=True)
        try:
            codes.append(main(argv))
        except BaseException as error:
            error.add_note(f"{argv} with {about}")
            raise
        said = capsys.readouterr()
        assert codes[-1] in (0, 1, 2), (argv, about)
        if codes[-1] == 2:
            (line,) = said.err.splitlines()
            assert line.startswith("Error: "), (argv, about)
        assert "\x1b[2J" not in said.out + said.err, (argv, about)
    return codes


def damaged(data: bytes, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """Yield ``data`` in many wrong forms."""
    yield "empty", b""
    yield "zeros", bytes(len(data))
    yield "random", chance.randbytes(1000)
    yield "doubled", data + data
    for length in sorted(chance.sample(range(len(data)), 6)):
        yield f"cut to {length}", data[:length]
    for _ in range(10):
        place = chance.randrange(len(data))
        flipped = bytearray(data)
        flipped[place] ^= 1 << chance.randrange(8)
        yield f"bit at {place}", bytes(flipped)


def odd_things(path: Path) -> Iterator[str]:
    """Put something that is no ordinary file at ``path``, one after the other."""
    path.mkdir()
    yield "a folder"
    path.rmdir()
    os.mkfifo(path)
    yield "a pipe"
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)
    yield "a link to itself"
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")
    yield "a link to an endless device"
    path.unlink(missing_ok=True)
    path.touch()
    os.truncate(path, 1 << 40)
    yield "a tebibyte of zeros"
    path.unlink(missing_ok=True)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def each_file(folder: Path) -> Iterator[Path]:
    """Return each file, in a folder as it was: pinning may complete what was begun in it."""
    shutil.copytree(folder, "kept")
    for path in files(folder):
        yield path
        shutil.rmtree(folder)
        shutil.copytree("kept", folder)


@pytest.mark.fault
@pytest.mark.timeout(120)
def test_damage_to_any_file_is_one_line(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(1)
    assert len(files(whole)) == 10
    for path in each_file(whole):
        data = path.read_bytes()
        for what, content in damaged(data, chance):
            path.write_bytes(content)
            run(chance.sample(COMMANDS, 3), (path, what), capsys)
            path.unlink(missing_ok=True)


@pytest.mark.fault
@pytest.mark.timeout(120)
def test_what_is_no_file_is_one_line(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in each_file(whole):
        path.unlink()
        for what in odd_things(path):
            run(COMMANDS, (path, what), capsys)


@pytest.mark.fault
def test_a_damaged_bundle_is_one_line(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("a.tar")
    for what, content in damaged(path.read_bytes(), random.Random(2)):
        path.write_bytes(content)
        assert run([IMPORT], what, capsys) == [1]
    path.unlink()
    for what in odd_things(path):
        if "tebibyte" not in what:  # it would be hashed, in constant memory, for an hour
            assert run([IMPORT], what, capsys) == [1]


class _Plain:
    """Stands for a manifest, and says what it is given."""

    def __init__(self, plain: dict[str, Any]) -> None:
        self._plain = plain

    def to_json(self) -> bytes:
        return json.dumps(self._plain, sort_keys=True).encode()


def tree_of(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint as `encode` would store it."""
    snapshot = decode(path.read_bytes())
    return {
        "format": "plora_cl.checkpoint",
        "format_version": 1,
        **{name: deepcopy(getattr(snapshot, name)) for name in (
            "cursor", "trained_tasks", "loss", "state",
        )},
        **{name: deepcopy(getattr(snapshot.facts, name)) for name in (
            "seed", "settings", "identity", "environment",
        )},
        "objects": {name: ref.to_plain() for name, ref in snapshot.objects.items()},
    }  # fmt: skip


def sealed(tree: dict[str, Any]) -> bytes:
    """Return ``tree`` under a seal that is right, with the manifest and the digest of it."""
    with contextlib.suppress(TypeError, ValueError, ArithmeticError, AttributeError):
        tree = {**tree, "state_digest": state_digest(tree["state"])}
    known = [name for name in Manifest.__dataclass_fields__ if name in tree]
    manifest: Any = _Plain({name: tree[name] for name in known})
    with pytest.MonkeyPatch.context() as patch:  # what a save refuses, a hostile file may hold
        patch.setattr(torch_archive, "MAX_INT_BITS", 1 << 20)
        patch.setattr(torch_archive, "MAX_DEPTH", 1 << 20)
        return sealed_zip.seal(b"", manifest.to_json(), torch_archive.records_of(tree))


def places(tree: Any, depth: int = 4) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of each value in a tree."""
    items: Any = ()
    if isinstance(tree, dict | list):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield (key,)
        if depth:
            yield from ((key, *rest) for rest in places(value, depth - 1))


def changed(tree: dict[str, Any], place: tuple[str | int, ...], value: object) -> dict[str, Any]:
    copy = deepcopy(tree)
    node: Any = copy
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    return copy


@pytest.mark.fault
@pytest.mark.timeout(200)
def test_values_of_any_type_under_a_seal_that_is_right_are_one_line(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(3)
    tree, path = tree_of(Path(NEWEST)), Path(NEWEST)
    path.write_bytes(sealed(tree))
    assert run(COMMANDS[:6], "nothing", capsys)[0] == 0
    for place in chance.sample(list(places(tree)), 150):
        for value in chance.sample((*ODD, *NOT_JSON), 2):
            try:
                path.write_bytes(sealed(changed(tree, place, value)))
            except (AttributeError, TypeError, ValueError):
                continue  # nothing that a file could hold
            run(chance.sample(COMMANDS, 2), (place, value), capsys)


@pytest.mark.fault
def test_bundles_that_contradict_themselves_are_one_line(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from checkpoint.test_bundle import hostile

    data = Path("a.tar").read_bytes()
    chance = random.Random(4)
    contents = json.loads(data[512 : data.index(b"}\n\0") + 1])
    for place in places(contents):
        for value in chance.sample(ODD, 4):
            wrong = changed(contents, place, value)

            def change(members: list[Any], wrong: dict[str, Any] = wrong) -> None:
                text = json.dumps(wrong, sort_keys=True, indent=1).encode() + b"\n"
                members[0][0].size = len(text)
                members[0] = (members[0][0], text)

            Path("a.tar").write_bytes(hostile(data, change))
            assert run([IMPORT], (place, value), capsys)[0] in (1, 2), (place, value)
