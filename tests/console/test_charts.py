from __future__ import annotations

from xml.etree import ElementTree

import pytest

from fastq.console.charts import Series, chart, scale, spark, time_scale


@pytest.mark.parametrize(
    ("highest", "axis"),
    [(0, (1, 1)), (0.4, (0.4, 0.2)), (3, (3, 1)), (7, (10, 5)), (99, (100, 50)),
     (4112, (6000, 2000)), (50_000, (60_000, 20_000))],
)  # fmt: skip
def test_an_axis_has_few_round_labels(highest: float, axis: tuple[float, float]) -> None:
    assert scale(highest) == pytest.approx(axis)


@pytest.mark.parametrize(
    ("seconds", "axis_s"),
    [
        (0.5, (0.6, 0.2)),
        (3, (3, 1)),
        (100, (120, 60)),
        (150, (180, 60)),
        (5_000, (5_400, 1_800)),
        (500_000, (518_400, 172_800)),
    ],
)
def test_an_axis_of_time_has_whole_units(seconds: float, axis_s: tuple[float, float]) -> None:
    top_us, step_us = time_scale(seconds * 1e6)
    assert (top_us / 1e6, step_us / 1e6) == pytest.approx(axis_s)


def test_a_chart_is_valid_xml_and_breaks_where_nothing_is_known() -> None:
    drawn = chart([0, 1, 2, 3], [Series('a"<b>', [1, None, 3, 2]), Series("b", [0, 0, 0, 0])], str, str)
    root = ElementTree.fromstring(drawn)
    lines = [path for path in root.iter("path") if "line" in path.attrib["class"]]
    assert [path.attrib["class"] for path in lines] == ["line", "line", "line second"]
    assert 'a"<b>: now 2, at most 3' in root.attrib["aria-label"]


def test_a_line_breaks_where_there_are_no_points_and_the_axis_goes_on_to_now() -> None:
    drawn = chart([0, 30, 300, 330], [Series("in", [1, 1, 1, 1])], str, str, until_us=660, gap_us=75)
    paths = [path.attrib for path in ElementTree.fromstring(drawn).iter("path") if path.attrib["class"] == "line"]
    assert len(paths) == 2
    assert float(paths[1]["d"].rpartition("L")[2].split()[0]) == pytest.approx(46 + (640 - 46 - 8) / 2)


def test_empty_charts() -> None:
    assert "nothing is known yet" in chart([], [Series("a", [])], str, str)
    ElementTree.fromstring(spark([], "nothing"))
    ElementTree.fromstring(spark([1, 2], "rates"))
