"""Charts as SVG: every mark says its value when it is hovered, and looks as the page's style sheet tells."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

_TICKS = 6
_BESIDE_TICKS = 8
_LONGEST_NAME = 30


@dataclass(frozen=True)
class Axis:
    """One direction of a chart.

    Attributes:
        label: What it shows, with the unit.
        low: Its lower end.
        high: Its upper end.
    """

    label: str
    low: float
    high: float

    @classmethod
    def around(cls, label: str, values: Iterable[float], margin: float = 0.05) -> Axis:
        """Return the axis that holds all finite values, with some space beside them."""
        finite = [value for value in values if math.isfinite(value)]
        low, high = min(finite, default=0.0), max(finite, default=1.0)
        space = margin * (high - low) or max(abs(high), 1.0) * margin
        return cls(label, low - space, high + space)

    def share(self, value: float) -> float:
        """Return where a value lies: 0 at the lower end, 1 at the upper."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Return some round values along the axis."""
        rough = (self.high - self.low) / _TICKS
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [round(number * step, 12) for number in range(first, last + 1)]


@dataclass(frozen=True)
class Margins:
    """Pixels around the plotting area."""

    left: int = 56
    right: int = 12
    top: int = 10
    bottom: int = 42


class Chart:
    """A chart in the making; marks lie on one another in the order they are added.

    Args:
        title: For those who cannot see it, and the name of the file it is saved as.
        x: The horizontal axis.
        y: The vertical axis.
        width: In pixels.
        height: In pixels.
        margins: Around the plotting area.
        names: In place of numbers along the vertical axis: names of the values 0, 1, ..., from the top.
    """

    def __init__(
        self,
        title: str,
        x: Axis,
        y: Axis,
        *,
        width: int = 640,
        height: int = 400,
        margins: Margins | None = None,
        names: Sequence[str] = (),
    ) -> None:
        self.title = title
        self._x, self._y = x, y
        self._width, self._height = width, height
        self._margins = margins or Margins()
        self._names = names
        self._marks: list[Markup] = []

    def point(self, x: float, y: float, tip: str, kind: str = "point", radius: float = 3.5) -> None:
        """Add a dot."""
        self._marks.append(
            Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}" data-tip="{}"/>').format(
                kind, self._across(x), self._down(y), radius, tip
            )
        )

    def line(self, xs: Sequence[float], ys: Sequence[float], tip: str = "", kind: str = "line") -> None:
        """Add a line through points; it is broken where a value is not finite."""
        path, pen_is_down = [], False
        for x, y in zip(xs, ys, strict=True):
            if not math.isfinite(y):
                pen_is_down = False
                continue
            path.append(f"{'L' if pen_is_down else 'M'}{self._across(x):.1f} {self._down(y):.1f}")
            pen_is_down = True
        self._marks.append(Markup('<path class="{}" d="{}"{}/>').format(kind, "".join(path), _tip(tip)))

    def band(self, xs: Sequence[float], low: Sequence[float], high: Sequence[float], tip: str) -> None:
        """Add the area between two curves, as far as both are finite and the chart reaches."""
        edges = [(x, a, b) for x, a, b in zip(xs, low, high, strict=True) if math.isfinite(a) and math.isfinite(b)]
        corners = [(x, b) for x, _, b in edges] + [(x, a) for x, a, _ in reversed(edges)]
        within = [(x, min(max(y, self._y.low), self._y.high)) for x, y in corners]
        points = " ".join(f"{self._across(x):.1f},{self._down(y):.1f}" for x, y in within)
        self._marks.append(Markup('<polygon class="band" points="{}" data-tip="{}"/>').format(points, tip))

    def bar(self, x: float, height: float, width: float, tip: str) -> None:
        """Add a bar that stands on the horizontal axis.

        Args:
            x: Its middle.
            height: As a share of the plotting area's.
            width: In pixels.
            tip: What it says.
        """
        bottom = self._height - self._margins.bottom
        tall = height * (bottom - self._margins.top)
        self._marks.append(
            Markup('<rect class="bar" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" data-tip="{}"/>').format(
                self._across(x) - width / 2, bottom - tall, width, tall, tip
            )
        )

    def svg(self) -> Markup:
        """Return the chart."""
        parts = (self._grid(), Markup("").join(self._marks), self._labels())
        return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}" data-name="{}">{}{}{}</svg>').format(
            self._width, self._height, self.title, self.title, *parts
        )

    def _grid(self) -> Markup:
        left, right = self._margins.left, self._width - self._margins.right
        top, bottom = self._margins.top, self._height - self._margins.bottom
        lines = []
        for value in self._x.ticks():
            at = self._across(value)
            lines.append(_segment("grid", at, top, at, bottom) + _text("tick middle", at, bottom + 15, f"{value:g}"))
        for value, name in self._rows():
            at = self._down(value)
            lines.append(_segment("grid", left, at, right, at))
            lines.append(_text("tick end", left - _BESIDE_TICKS, at + 4, _shortened(name), name))
        return Markup("").join(lines)

    def _rows(self) -> list[tuple[float, str]]:
        if self._names:
            return [(float(number), name) for number, name in enumerate(self._names)]
        return [(value, f"{value:g}") for value in self._y.ticks()]

    def _labels(self) -> Markup:
        middle = (self._margins.left + self._width - self._margins.right) / 2
        height = (self._margins.top + self._height - self._margins.bottom) / 2
        across = _text("axis middle", middle, self._height - 8, self._x.label)
        if not self._y.label:
            return across
        return across + Markup(
            '<text class="axis middle" transform="translate(14 {:.1f}) rotate(-90)">{}</text>'
        ).format(height, self._y.label)

    def _across(self, value: float) -> float:
        return self._margins.left + self._x.share(value) * (self._width - self._margins.left - self._margins.right)

    def _down(self, value: float) -> float:
        space = self._height - self._margins.top - self._margins.bottom
        share = self._y.share(value)
        return self._margins.top + (share if self._names else 1 - share) * space


def _segment(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(kind, x1, y1, x2, y2)


def _text(kind: str, x: float, y: float, text: str, tip: str = "") -> Markup:
    shown = Markup('<text class="{}" x="{:.1f}" y="{:.1f}"{}>{}</text>')
    return shown.format(kind, x, y, _tip(tip if tip != text else ""), text)


def _tip(tip: str) -> Markup:
    return Markup(' data-tip="{}"').format(tip) if tip else Markup()


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
