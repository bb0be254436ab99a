"""SVG pieces: escaping, round ticks, lines with gaps."""

import math
import re

import pytest

from hms_ray.report import _svg
from hms_ray.report._svg import Panel, Scale


def test_text_and_attributes_are_escaped():
    assert _svg.text(0, 0, "<b>&") == '<text x="0" y="0" text-anchor="start" class="">&lt;b&gt;&amp;</text>'
    assert 'title="&#34;&gt;"' in _svg.element("g", title='">')


def test_a_child_that_is_markup_stays_markup():
    assert _svg.element("g", _svg.element("a")) == "<g><a/></g>"


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.0, 1.0, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0.213, 0.262, ["0.22", "0.23", "0.24", "0.25", "0.26"]),
        (0.0, 830.0, ["0", "200", "400", "600", "800"]),
        (-0.3, 0.3, ["-0.3", "-0.2", "-0.1", "0.0", "0.1", "0.2", "0.3"]),
    ],
)
def test_ticks_are_round_and_inside(low, high, labels):
    assert [label for _, label in Scale(low, high, 0, 100).ticks()] == labels


def test_whole_ticks_never_split_a_number():
    assert [value for value, _ in Scale(0.9, 3.1, 0, 100).ticks(whole=True)] == [1, 2, 3]


@pytest.mark.parametrize("values", [[], [math.nan], [0.3], [0.0], [2.0, math.inf]])
def test_scale_around_little_data_is_not_degenerate(values):
    scale = Scale.around(values, 0, 100)
    assert scale.low < scale.high and scale.ticks()


def test_scale_maps_ends_to_pixels():
    scale = Scale(2.0, 4.0, 100.0, 0.0)
    assert (scale(2.0), scale(3.0), scale(4.0)) == (100.0, 50.0, 0.0)


def test_path_is_interrupted_where_a_value_is_missing():
    drawn = _svg.path([(0, 0), (1, 1), (2, math.nan), (3, 3)], "thin")
    assert re.search(r'd="([^"]*)"', drawn).group(1) == "M0 0L1 1M3 3"


def test_panel_draws_one_rule_a_tick():
    panel = Panel(Scale(0, 1, 0, 100), Scale(0, 1, 100, 0))
    drawn = "".join(panel.grid("epoch", "KL", (0, 5)))
    assert drawn.count('class="rule"') == 6 and "epoch" in drawn and "KL" in drawn


def test_figure_is_named_for_those_who_cannot_see_it():
    drawn = _svg.figure(10, 20, "KL of <a>")
    assert (
        'role="img"' in drawn and 'aria-label="KL of &lt;a&gt;"' in drawn and "<title>KL of &lt;a&gt;</title>" in drawn
    )
