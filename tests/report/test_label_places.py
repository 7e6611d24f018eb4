from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gpu_select.report.label_places import place_labels


def test_a_lone_label_stands_above_its_point():
    assert place_labels([(100, 100)], [8], (200, 200)) == ["top center"]


def test_labels_stay_inside():
    assert place_labels([(2, 100), (198, 100)], [8, 8], (200, 200)) == ["middle right", "middle left"]
    assert place_labels([(100, 198)], [8], (200, 200)) == ["bottom center"]


def test_of_two_points_one_above_the_other_each_gets_its_side():
    assert place_labels([(100, 100), (100, 110)], [8, 8], (200, 200)) == ["bottom center", "top center"]


def test_a_label_without_room_is_left_out():
    assert place_labels([(10, 10)], [40], (20, 20)) == [""]


def test_points_without_labels_are_kept_free_where_possible():
    assert place_labels([(100, 100), (100, 114)], [8], (200, 200)) == ["bottom center"]


@given(
    st.lists(st.tuples(st.floats(0, 300), st.floats(0, 200)), max_size=30),
    st.lists(st.integers(0, 25), min_size=30, max_size=30),
)
def test_each_of_the_first_points_has_an_answer(points, lengths):
    places = place_labels(points, lengths[: len(points)], (300, 200))
    assert len(places) == len(points)
