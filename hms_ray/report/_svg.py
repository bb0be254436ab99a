"""Small pieces of SVG: elements, scales, a plotting panel. Text is escaped here, so figures never touch markup."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

MARGIN_SHARE = 0.06  # of the range, so that no point lies on the frame


def element(tag: str, *children: str, **attributes: object) -> Markup:
    """Return one element; children and attribute values are escaped, `_` in names becomes `-`."""
    names = {name: name.rstrip("_").replace("_", "-") for name in attributes}
    words = "".join(f' {names[name]}="{escape(_plain(value))}"' for name, value in attributes.items())
    inside = "".join(str(escape(child)) for child in children)
    return Markup(f"<{tag}{words}>{inside}</{tag}>" if inside else f"<{tag}{words}/>")


def figure(width: float, height: float, title: str, *children: str) -> Markup:
    """Return an <svg> that scales with its box; `title` is for screen readers."""
    box = f"0 0 {_plain(width)} {_plain(height)}"
    return element(
        "svg", element("title", title), *children, viewBox=box, width=width, height=height, role="img", aria_label=title
    )


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> Markup:
    """Return a line of text whose baseline is y; anchor: start, middle or end."""
    return element("text", content, x=x, y=y, text_anchor=anchor, class_=kind)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """Return a straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def path(points: Iterable[tuple[float, float]], kind: str) -> Markup:
    """Return a line through the points; it is interrupted at points that are not finite."""
    words, pen = [], "M"
    for x, y in points:
        if math.isfinite(x) and math.isfinite(y):
            words.append(f"{pen}{_plain(x)} {_plain(y)}")
            pen = "L"
        else:
            pen = "M"
    return element("path", d="".join(words), class_=kind)


def dot(x: float, y: float, radius: float, kind: str, title: str) -> Markup:
    """Return a circle with a tooltip."""
    return element("circle", element("title", title), cx=x, cy=y, r=radius, class_=kind)


@dataclass(frozen=True)
class Scale:
    """A linear map from [low, high] to pixels [start, end]."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def around(cls, values: Iterable[float], start: float, end: float) -> "Scale":
        """Cover the finite values with a margin; without finite values, 0 to 1."""
        finite = [float(v) for v in values if math.isfinite(v)] or [0.0, 1.0]
        low, high = min(finite), max(finite)
        margin = (high - low) * MARGIN_SHARE or abs(high) * MARGIN_SHARE or 1.0
        return cls(low - margin, high + margin, start, end)

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, count: int = 5, whole: bool = False) -> list[tuple[float, str]]:
        """Return about `count` round values inside the scale with their labels; whole: whole numbers only."""
        rough = (self.high - self.low) / count
        power = 10 ** math.floor(math.log10(rough))
        step = min((m * power for m in (1, 2, 5, 10)), key=lambda s: abs(math.log(s / rough)))
        step = max(step, 1.0) if whole else step
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        values = [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]
        return [(value, f"{value + 0.0:.{decimals}f}") for value in values]


@dataclass(frozen=True)
class Panel:
    """A plotting area: x grows to the right, y upwards (its start is the bottom)."""

    x: Scale
    y: Scale

    def grid(self, x_label: str, y_label: str, ticks: tuple[int, int] = (5, 4), whole_x: bool = False) -> list[Markup]:
        """Return horizontal rules, tick labels, and both axis labels (the one of y is above the axis).

        ticks: approximate numbers along x and y; 0 along x if a panel below shares the axis
        """
        left, bottom = self.x.start, self.y.start
        parts = [line(left, bottom, self.x.end, bottom, "axis")]
        for value, label in self.y.ticks(ticks[1]):
            parts.append(line(left, self.y(value), self.x.end, self.y(value), "rule"))
            parts.append(text(left - 6, self.y(value) + 3.5, label, anchor="end"))
        for value, label in self.x.ticks(ticks[0], whole_x) if ticks[0] else ():
            parts.append(line(self.x(value), bottom, self.x(value), bottom + 4, "axis"))
            parts.append(text(self.x(value), bottom + 16, label, anchor="middle"))
        parts.append(text(left, self.y.end - 8, y_label, "label"))
        parts.append(text(self.x.end, bottom + 31, x_label, "label", "end"))
        return parts


def legend(entries: Sequence[tuple[str, str]], x: float, y: float, advance: float) -> list[Markup]:
    """Return marks and their labels in a row; entries: (class of the mark, label)."""
    parts = []
    for i, (kind, words) in enumerate(entries):
        parts.append(element("circle", cx=x + i * advance, cy=y - 3.5, r=4, class_=kind))
        parts.append(text(x + i * advance + 9, y, words))
    return parts


def _plain(value: object) -> str:
    """Format floats with at most two decimals: smaller parts of a pixel are not visible, and the page stays small."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
