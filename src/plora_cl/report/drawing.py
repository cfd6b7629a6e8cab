"""Figures drawn by Matplotlib, as SVG and PNG files and as SVG inside a page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from plora_cl.report.colours import HEAT_LIGHT, LIGHT, variables
from plora_cl.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 4.2
"""Inches: a column of a paper; a phone shows it without loss."""

_PNG_DOTS = 200  # per inch
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": LIGHT["muted"],
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": LIGHT["ink"],
    "axes.labelsize": 9,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "axes.titlecolor": LIGHT["ink"],
    "axes.unicode_minus": True,
    "figure.constrained_layout.use": True,
    "figure.facecolor": LIGHT["surface"],
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "grid.color": LIGHT["grid"],
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.labelcolor": LIGHT["ink"],
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "path.simplify": True,
    "svg.fonttype": "none",
    "text.color": LIGHT["ink"],
    "text.parse_math": False,
    "xtick.color": LIGHT["muted"],
    "xtick.labelcolor": LIGHT["ink"],
    "xtick.labelsize": 8,
    "ytick.color": LIGHT["muted"],
    "ytick.labelcolor": LIGHT["ink"],
    "ytick.labelsize": 8,
}


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure and the table of what it shows.

    Attributes:
        slug: Name of its files, without ending.
        title: A few words.
        caption: How to read it, in a sentence or two; what a screen reader says of the drawing.
        table: The numbers.
        draw: Draws into an empty Matplotlib figure.
        height: In inches; the width is `WIDTH`.
    """

    slug: str
    title: str
    caption: str
    table: Table
    draw: Callable[[Figure], None]
    height: float = 3.0


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart, drawn."""

    chart: Chart
    svg: bytes
    png: bytes


def drawn(chart: Chart) -> Drawing:
    """Return ``chart`` as SVG and PNG; equal charts give equal bytes."""
    from matplotlib import rc_context, rcdefaults
    from matplotlib.figure import Figure

    svg, png = io.BytesIO(), io.BytesIO()
    with rc_context():
        rcdefaults()  # what a user has in a matplotlibrc belongs to other figures
        with rc_context({**_STYLE, "svg.hashsalt": chart.slug}), warnings.catch_warnings():
            # A browser has the letters that the font of the PNG lacks.
            warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
            figure = Figure(figsize=(WIDTH, chart.height))
            chart.draw(figure)
            figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
            figure.savefig(png, format="png", dpi=_PNG_DOTS, metadata={"Software": None})
    return Drawing(chart, _compact(svg.getvalue(), chart), png.getvalue())


def inline(drawing: Drawing, name: str) -> str:
    """Return the SVG of a drawing as an element of a page.

    Its colours are CSS variables, its text has the font of the page, and its identifiers begin
    with ``name``, so that several drawings do not share any.
    """
    root = ET.fromstring(drawing.svg)
    known = {element.get("id") for element in root.iter()} - {None}
    for element in root.iter():
        if "fill" in element.attrib:
            fill = f"fill: {element.attrib.pop('fill')}"
            element.set("style", "; ".join(filter(None, [fill, element.get("style")])))
        for key, value in list(element.attrib.items()):
            element.set(key, _own(_themed(value) if key == "style" else value, known, name))
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title")
    root.set("aria-describedby", f"{name}-caption")
    root.set("preserveAspectRatio", "xMidYMid meet")
    return ET.tostring(root, encoding="unicode")


def _compact(svg: bytes, chart: Chart) -> bytes:
    """Return an SVG with a title, without metadata, comments and digits that nobody sees."""
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    root = ET.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == f"{{{_SVG}}}metadata":
                parent.remove(child)
    referred = set(re.findall(r"#([\w-]+)", svg.decode()))
    for element in root.iter():
        element.text, element.tail = _without_blanks(element.text), _without_blanks(element.tail)
        if element.get("id") not in referred:
            element.attrib.pop("id", None)
        for key in ("d", "transform", "x", "y"):
            if key in element.attrib:
                element.set(key, _rounded(element.attrib[key]))
    title, description = ET.Element(f"{{{_SVG}}}title"), ET.Element(f"{{{_SVG}}}desc")
    title.text, description.text = chart.title, chart.caption
    root.insert(0, title)
    root.insert(1, description)
    return ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _without_blanks(text: str | None) -> str | None:
    return text if text and text.strip() else None


def _rounded(numbers: str) -> str:
    short = re.sub(
        r"-?\d+\.\d+", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), numbers
    )
    return " ".join(short.split())


_VARIABLES = {colour: name for name, colour in variables(LIGHT, HEAT_LIGHT).items()}


def _themed(style: str) -> str:
    style = re.sub(
        r"#[0-9a-f]{6}",
        lambda found: f"var(--{_VARIABLES[found[0]]})" if found[0] in _VARIABLES else found[0],
        style,
    )
    return re.sub(r"font: ([\d.]+)px [^;]+", r"font-size: \1px; font-family: inherit", style)


def _own(value: str, known: set[Any], name: str) -> str:
    if value in known:
        return f"{name}-{value}"
    if value.startswith("#") and value[1:] in known:
        return f"#{name}-{value[1:]}"
    return re.sub(r"url\(#([\w-]+)\)", rf"url(#{name}-\1)", value)
