"""What the live page says in words of a micrograph: its values with their units, in the digits that people read."""

from collections.abc import Collection, Mapping

from people import words
from preprocessing.histograms import MEASURES

# What the page shows beside the measures of histograms.py: by column: label, unit, digits, factor from the stored unit.
MORE_VALUES = {
    "defocus_u": ("Defocus U", "µm", 2, 1e-4),
    "defocus_v": ("Defocus V", "µm", 2, 1e-4),
    "defocus_angle": ("Astigmatism angle", "°", 0, 1),
}
ORDER = ("defocus", "defocus_u", "defocus_v", "astigmatism", "defocus_angle", "phase_shift", "ctf_resolution")
ORDER += ("ctf_score", "motion_total", "motion_early", "motion_late", "ice_thickness", "particles")
DIGITS = {"defocus": 2, "astigmatism": 0, "particles": 0, "ctf_score": 3, "ice_thickness": 2}
USUAL_DIGITS = 1


def digits(key: str) -> int:
    """How many decimals of a measure people read."""
    return DIGITS.get(key, USUAL_DIGITS)


def digits_sent(key: str) -> int:
    """How many decimals of a measure a page is sent, to draw, to take medians of and to round as people read it.

    Two finer than that: of a single one more, 5 in 100 would be rounded up twice (12.148, 12.15, 12.2).
    """
    return digits(key) + 2


def values(row: Mapping, sent: Collection[str]) -> list[dict]:
    """A micrograph's values, from its stored columns, as rows of key, label, text (None: unknown) and unit.

    `sent` names the measures the run has sent for any micrograph; what it never sent is left out.
    """
    rows = []
    for key in ORDER:
        if key in MEASURES:
            measure = MEASURES[key]
            label, unit, places = measure.label, measure.unit, digits(key)
            value, expected = measure.value(row), key in sent
        else:
            label, unit, places, factor = MORE_VALUES[key]
            value, expected = row[key], "defocus" in sent
            value = None if value is None else value * factor
        if value is not None or expected:
            rows.append({"key": key, "label": label, "text": words.number(value, places), "unit": unit})
    return rows
