"""The geometry of small charts that a page draws as SVG, without a script; a table beside them has the numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 440, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 10, 24
# So many labels fit below without touching.
MAX_LABELS = 7
# Okabe and Ito's colours in an order that keeps neighbours apart; black left out, as it is lost on a dark page.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


@dataclass(frozen=True)
class Series:
    """One value for each label, None where unknown."""

    name: str
    values: Sequence[float | None]
    colour: str = ""


@dataclass(frozen=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    colour: str
    title: str


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    colour: str
    title: str


@dataclass(frozen=True)
class Line:
    """`paths` are the stretches between unknown values, as SVG's `d`."""

    paths: tuple[str, ...]
    points: tuple[Point, ...]
    colour: str


@dataclass(frozen=True)
class Chart:
    title: str
    unit: str
    legend: tuple[tuple[str, str], ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    bars: tuple[Bar, ...] = ()
    lines: tuple[Line, ...] = ()
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    baseline: int = HEIGHT - BOTTOM


def bar_chart(title: str, unit: str, labels: Sequence[str], series: Sequence[Series]) -> Chart | None:
    """Bars from zero, side by side for each label; None where nothing is known."""
    series = _coloured(series)
    top, ticks = _scale(series, from_zero=True)
    if top is None:
        return None
    step = (WIDTH - LEFT - RIGHT) / len(labels)
    width = min(0.72 * step / len(series), 26)
    bars = []
    for place, one in enumerate(series):
        for index, value in enumerate(one.values):
            if not value:
                continue
            height = _height(value, 0, top)
            x = LEFT + (index + 0.5) * step + (place - len(series) / 2) * width
            text = _title(labels[index], one.name, value, unit, len(series) > 1)
            bars.append(Bar(_r(x), _r(HEIGHT - BOTTOM - height), _r(width), _r(height), one.colour, text))
    return Chart(
        title,
        unit,
        _legend(series),
        _x_ticks(labels, step),
        tuple(Tick(_r(_y(tick, 0, top)), _number(tick)) for tick in ticks),
        bars=tuple(bars),
    )


def line_chart(title: str, unit: str, labels: Sequence[str], series: Sequence[Series]) -> Chart | None:
    """Lines with a point for each known value; None where nothing is known."""
    series = [one for one in _coloured(series) if any(value is not None for value in one.values)]
    top, ticks = _scale(series, from_zero=False)
    if top is None:
        return None
    bottom = ticks[0]
    step = (WIDTH - LEFT - RIGHT) / len(labels)
    lines = []
    for one in series:
        points, paths, stretch = [], [], []
        for index, value in enumerate([*one.values, None]):
            if value is None:
                if len(stretch) > 1:
                    paths.append("M" + "L".join(stretch))
                stretch = []
                continue
            x, y = _r(LEFT + (index + 0.5) * step), _r(_y(value, bottom, top))
            stretch.append(f"{x} {y}")
            text = _title(labels[index], one.name, value, unit, len(series) > 1)
            points.append(Point(x, y, one.colour, text))
        lines.append(Line(tuple(paths), tuple(points), one.colour))
    return Chart(
        title,
        unit,
        _legend(series),
        _x_ticks(labels, step),
        tuple(Tick(_r(_y(tick, bottom, top)), _number(tick)) for tick in ticks),
        lines=tuple(lines),
    )


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) that enclose low to high."""
    if high <= low:
        high = low + (abs(low) or 1)
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(step * index, 12) for index in range(first, last + 1)]


def _coloured(series: Sequence[Series]) -> list[Series]:
    return [
        one if one.colour else Series(one.name, one.values, COLOURS[place % len(COLOURS)])
        for place, one in enumerate(series)
    ]


def _scale(series: Sequence[Series], *, from_zero: bool) -> tuple[float | None, list[float]]:
    known = [value for one in series for value in one.values if value is not None]
    if not known or (from_zero and not any(known)):
        return None, []
    low, high = (0.0 if from_zero else min(known)), max(known)
    ticks = nice_ticks(low, high)
    return ticks[-1], ticks


def _height(value: float, bottom: float, top: float) -> float:
    return (value - bottom) / (top - bottom) * (HEIGHT - TOP - BOTTOM)


def _y(value: float, bottom: float, top: float) -> float:
    return HEIGHT - BOTTOM - _height(value, bottom, top)


def _x_ticks(labels: Sequence[str], step: float) -> tuple[Tick, ...]:
    every = math.ceil(len(labels) / MAX_LABELS)
    return tuple(
        Tick(_r(LEFT + (index + 0.5) * step), label)
        for index, label in enumerate(labels)
        if index % every == 0
    )


def _legend(series: Sequence[Series]) -> tuple[tuple[str, str], ...]:
    return tuple((one.name, one.colour) for one in series) if len(series) > 1 else ()


def _title(label: str, name: str, value: float, unit: str, several: bool) -> str:
    return f"{label}{f', {name}' if several else ''}: {_number(value)}{f' {unit}' if unit else ''}"


def _number(value: float) -> str:
    if abs(value) >= 1_000_000:
        return f"{value / 1_000_000:.3g} M"
    if abs(value) >= 10_000:
        return f"{value / 1000:.3g} k"
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _r(value: float) -> float:
    return round(value, 1)
