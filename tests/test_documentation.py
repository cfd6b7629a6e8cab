"""What the documents say of files, commands and settings is so."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from plora_cl.cli.train.flags import train_parser
from plora_cl.config.fields import impacts
from plora_cl.config.schema import Settings

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "plora_cl"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
METHODS = sorted((ROOT / "docs" / "methods").glob("*.md"))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    without_code = re.sub(r"(?ms)^```.*?^```", "", page.read_text("utf-8"))
    titles = re.findall(r"(?m)^#+ (.*)$", without_code)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def commands(page: Path) -> Iterator[str]:
    for block in re.findall(r"```bash\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if found := re.search(r"plora-cl train (.*?)( &|; do)?$", line):
                yield found[1]


def tables() -> Iterator[tuple[str, str, str, str]]:
    """Yield the page, setting, default and impact of each line of a table of settings."""
    for page in METHODS:
        for line in page.read_text("utf-8").splitlines():
            cells = [cell.strip() for cell in line.split(" | ")]
            if len(cells) == 4 and (impact := cells[3].removesuffix(" |")) in (
                "trajectory",
                "structural",
                "harmless",
            ):
                names, values = cells[0].removeprefix("| ").split(", "), cells[1].split(", ")
                for name, value in zip(names, values, strict=True):
                    yield page.stem, name.strip("`"), value, impact


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    if page.name == "CHANGELOG.md":  # speaks of what was, too
        return
    for path in re.findall(r"(?:tests|src|benchmarks|docs)/[\w./-]*\w", page.read_text("utf-8")):
        assert (ROOT / path).exists(), path


def test_every_module_of_the_tour_is_there() -> None:
    named = re.findall(
        r"`([a-z_]+/[a-z_/]+\.py)`", (ROOT / "docs/architecture.md").read_text("utf-8")
    )
    assert len(named) > 15
    for path in named:
        assert (PACKAGE / path).exists() or (ROOT / path).exists(), path


def test_the_table_of_layers_is_the_import_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    layers = [line.split(" | ") for line in contracts["contracts"][0]["layers"]]
    names = [[name.removeprefix("plora_cl.") for name in layer] for layer in layers]
    folders = [[name for name in layer if (PACKAGE / name).is_dir()] for layer in names]
    page = (ROOT / "docs/architecture.md").read_text("utf-8")
    lines = re.findall(r"(?m)^\| ((?:`\w+`(?: · )?)+) \|", page)
    assert [re.findall(r"\w+", line) for line in lines] == [layer for layer in folders if layer]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_training_command_is_understood(page: Path) -> None:
    for command in commands(page):
        if "--help" not in command:
            assert vars(train_parser().parse_args(shlex.split(command)))


@pytest.mark.parametrize(("page", "name", "default", "impact"), list(tables()))
def test_a_table_of_settings_has_the_defaults_and_impacts_of_the_code(
    page: str, name: str, default: str, impact: str
) -> None:
    value = Settings.model_fields[name].default
    if default != "built-in":
        assert json.loads(json.dumps(value)) == _plain(default.strip("`"))
    assert impacts()[name].name.lower() == impact


def test_every_setting_of_a_method_is_in_a_table() -> None:
    described = {name for _, name, _, _ in tables()}
    of_methods = ("use_", "lambda_", "ewc_", "ortho_", "replay_", "router_", "lateral_")
    assert {name for name in impacts() if name.startswith(of_methods)} <= described


def _plain(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text
