"""Colours can be told apart, by anybody and in both themes."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest

from plora_cl.report.colours import (
    DARK,
    HEAT_DARK,
    HEAT_LIGHT,
    INK_ON_HEAT,
    LIGHT,
    contrast,
    variables,
)

THEMES = {"light": (LIGHT, HEAT_LIGHT), "dark": (DARK, HEAT_DARK)}
VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
"""What is seen, in linear RGB. Source: Machado, Oliveira and Fernandes 2009, severity 1."""

LEAST_DISTANCE = 8.0
"""In OKLab times 100: twice what is seen at a glance on large areas."""


def linear(colour: str) -> npt.NDArray[np.float64]:
    parts = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def oklab(rgb: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Source: Ottosson 2020, "A perceptual color space for image processing"."""
    cones = np.array([
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ])  # fmt: skip
    lab = np.array([
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ])  # fmt: skip
    return lab @ np.cbrt(cones @ np.clip(rgb, 0, 1))


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("vision", VISION)
def test_series_differ_for_every_kind_of_colour_vision(theme: str, vision: str) -> None:
    roles = THEMES[theme][0]
    series = [colour for role, colour in roles.items() if role.startswith("series")]
    seen = [oklab(np.array(VISION[vision]) @ linear(colour)) for colour in series]
    for one, other in combinations(seen, 2):
        assert 100 * np.linalg.norm(one - other) >= LEAST_DISTANCE


@pytest.mark.parametrize("theme", THEMES)
def test_text_and_marks_have_the_contrast_of_wcag(theme: str) -> None:
    roles, heat = THEMES[theme]
    for role, colour in roles.items():
        if role.startswith("series"):
            assert contrast(colour, roles["surface"]) >= 3
        elif role in ("ink", "muted", "accent", "warn"):
            assert contrast(colour, roles["surface"]) >= 4.5
    for step, colour in enumerate(heat):
        assert contrast(colour, roles["ink" if step < INK_ON_HEAT else "surface"]) >= 4.5


def test_every_colour_has_one_role_and_both_themes_have_all() -> None:
    light, dark = variables(LIGHT, HEAT_LIGHT), variables(DARK, HEAT_DARK)
    assert len(set(light.values())) == len(light)
    assert light.keys() == dark.keys()


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)
