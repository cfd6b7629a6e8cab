"""The page of a report: one file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files

from plora_cl.report.colours import DARK, HEAT_DARK, HEAT_LIGHT, LIGHT, variables
from plora_cl.report.drawing import Drawing, inline
from plora_cl.report.sections import Section


def page(
    title: str,
    sections: Sequence[Section],
    drawings: Mapping[str, Drawing],
    *,
    version: str,
    written: str,
) -> str:
    """Return the HTML of a report.

    It has no script, and its policy forbids the browser to load anything: what a file says in place
    of a name cannot do more than be read.

    Args:
        title: Heading of the page.
        sections: Its parts.
        drawings: Of every chart, by slug.
        version: Of this package.
        written: When, in words.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    folder = files("plora_cl.report")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((folder / "page.html.jinja").read_text("utf-8"))
    colours = {
        theme: "".join(f"--{name}:{colour};" for name, colour in variables(*parts).items())
        for theme, parts in {"light": (LIGHT, HEAT_LIGHT), "dark": (DARK, HEAT_DARK)}.items()
    }
    return template.render(
        title=title,
        sections=sections,
        svg={slug: Markup(inline(one, slug)) for slug, one in drawings.items()},
        style=Markup((folder / "page.css").read_text("utf-8")),
        colours={theme: Markup(text) for theme, text in colours.items()},
        version=version,
        written=written,
    )
