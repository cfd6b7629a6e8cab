"""The commands and the example of docs/tasks.md, as written, on real files."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from plora_cl.cache_folder import default_cache_dir
from plora_cl.cli.train.flags import resolved, train_parser
from plora_cl.config.inputs import require_inputs
from plora_cl.config.precedence import resolve
from plora_cl.data.sources.declaration import parse_tasks

TEXT = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
(COMMAND,) = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [
        {"subject": "lunch", "body": "at noon", "folder": "private"},
        {"subject": "report", "body": "is due", "folder": "work"},
        {"subject": "you won", "body": "a prize", "folder": "junk"},
    ]
    as_usual = [{"text": f"{r['subject']} {r['body']}", "label": r["folder"]} for r in rows]
    for name, splits in (
        ("reviews", {"train": as_usual, "test": as_usual}),
        ("mails", {"train": rows, "held-out": rows, "test": [{**r, "label": "x"} for r in rows]}),
    ):
        Path("data", name).mkdir(parents=True)
        for split, content in splits.items():
            lines = "\n".join(map(json.dumps, content))
            Path("data", name, f"{split}.jsonl").write_text(lines, encoding="utf-8")


def test_the_example_reads_what_it_says() -> None:
    Path("c.yaml").write_text(EXAMPLE, encoding="utf-8")
    settings = resolve(config=Path("c.yaml")).settings
    require_inputs([settings])
    sources = parse_tasks(settings.tasks)
    assert [source.name for source in sources] == ["reviews", "inbox", "ag_news", "bbc_news"]
    inbox = sources[1]
    assert inbox.place("test").endswith("held-out.jsonl")
    for split in ("train", "test"):
        texts = [(row.text, row.label) for row in inbox.rows(split)]
        assert texts == [("lunch at noon", "private"), ("report is due", "work")]


def test_the_command_takes_a_mapping_as_one_argument() -> None:
    program, command, *argv = shlex.split(COMMAND)
    assert (program, command) == ("plora-cl", "train")
    settings = resolved(vars(train_parser().parse_args(argv))).settings
    assert [source.name for source in parse_tasks(settings.tasks)] == [
        "ag_news",
        "reviews",
        "mails",
    ]


def test_the_cache_is_where_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("PLORA_CL_CACHE", raising=False)
    assert default_cache_dir() == tmp_path / "xdg" / "plora_cl"
    monkeypatch.setenv("PLORA_CL_CACHE", str(tmp_path / "mine"))
    assert default_cache_dir() == tmp_path / "mine"
