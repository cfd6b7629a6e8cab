"""Colours by role, for light and dark pages, told apart with any kind of colour vision.

Series have a contrast of at least 3:1 to the surface and text at least 4.5:1 (WCAG 2.2). Figures
are drawn with the light colours; on the page each becomes a CSS variable.
"""

from __future__ import annotations

LIGHT = {
    "surface": "#ffffff",
    "ink": "#1b1f24",
    "muted": "#57606a",
    "grid": "#d8dee4",
    "accent": "#0a5fa3",
    "warn": "#b3261e",
    "series-1": "#2841d2",
    "series-2": "#9e9015",
    "series-3": "#2a8a7b",
    "series-4": "#970489",
    "series-5": "#7d6400",
    "series-6": "#2596d8",
    "series-7": "#3a4650",
    "series-8": "#7c0e0a",
}
DARK = {
    "surface": "#15191f",
    "ink": "#e6eaef",
    "muted": "#a3adb8",
    "grid": "#343c46",
    "accent": "#7cbcf5",
    "warn": "#ff8a80",
    "series-1": "#658ae6",
    "series-2": "#f2891f",
    "series-3": "#58c8a9",
    "series-4": "#bfe1ff",
    "series-5": "#ffcf47",
    "series-6": "#b0b7ff",
    "series-7": "#928b9f",
    "series-8": "#e35155",
}
HEAT_LIGHT = (
    *("#eff6fb", "#d9e9f5", "#c0d9ef", "#a3c8e7", "#84b4dc", "#619bcf"),
    *("#2e76ba", "#1f5e9e", "#134986", "#09356c"),
)
"""From 0 to 1 in tenths: ink is legible on the first six, the surface colour on the others."""

HEAT_DARK = (
    *("#17232f", "#1a3046", "#1e3e5e", "#224b73", "#285a8a", "#2e6ba4"),
    *("#4c89c2", "#66a3d9", "#86bdec", "#b5d8f5"),
)
INK_ON_HEAT = 6
SERIES = tuple(colour for role, colour in LIGHT.items() if role.startswith("series"))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[object, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))


def variables(theme: dict[str, str], heat: tuple[str, ...]) -> dict[str, str]:
    """Return every colour of a theme by the name of its CSS variable."""
    return {**theme, **{f"heat-{step}": colour for step, colour in enumerate(heat)}}


def heat(value: float) -> int:
    """Return the tenth that a share in [0, 1] falls into, 0 to 9."""
    return min(9, max(0, int(value * 10)))


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, 1 to 21.

    Source: WCAG 2.2, "contrast ratio" and "relative luminance".
    """
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    parts = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
