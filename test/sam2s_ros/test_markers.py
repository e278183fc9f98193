"""Markers against the pinhole that they claim to be seen through."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from session_builders import HEIGHT, WIDTH, blob, session_result, two_and_a_lost_one
from visualization_msgs.msg import Marker, MarkerArray

from sam2s_model.result import TrackState
from sam2s_ros.ground_truth import nominal_camera
from sam2s_ros.image_plane import ImagePlane
from sam2s_ros.markers import LIFETIME, MAX_POINTS, contours, markers_message
from sam2s_ros.rle import encode_mask

pytestmark = pytest.mark.ros


def by_part(message: MarkerArray) -> dict[tuple[str, int], Marker]:
    return {(marker.ns, marker.id): marker for marker in message.markers[1:]}


def pixel(point) -> tuple[float, float]:
    """Where the nominal camera sees a point."""
    fx, _, cx, _, fy, cy, *_ = nominal_camera(WIDTH, HEIGHT).k
    return fx * point.x / point.z + cx, fy * point.y / point.z + cy


def test_every_target_has_its_markers_and_old_ones_go():
    result = two_and_a_lost_one()
    message = markers_message(result)
    message = deserialize_message(serialize_message(message), MarkerArray)
    assert message.markers[0].action == Marker.DELETEALL
    parts = by_part(message)
    assert set(parts) == {
        ("contour", 3), ("centroid", 3), ("name", 3), ("contour", 5), ("centroid", 5), ("name", 5),
        ("name", 7),
    }  # fmt: skip
    for marker in message.markers:
        assert (marker.header.stamp.sec, marker.header.frame_id) == (12, "scope")
    for marker in parts.values():
        seconds = marker.lifetime.sec + marker.lifetime.nanosec * 1e-9
        assert seconds == pytest.approx(LIFETIME)
        assert marker.pose.orientation.w == 1.0
    assert parts["name", 3].text == "left: hook 75%"
    assert parts["name", 7].text == "gone: hook 75% (lost)"
    assert parts["name", 7].color.a < parts["name", 3].color.a == 1.0
    assert parts["name", 3].color != parts["name", 5].color


def test_markers_lie_where_the_camera_sees_the_targets():
    result = two_and_a_lost_one()
    parts = by_part(markers_message(result, ImagePlane(distance=0.25)))
    for entry in result.objects[:2]:
        value = entry.label_value
        assert pixel(parts["centroid", value].pose.position) == pytest.approx(entry.centroid)
        corners = [pixel(point) for point in parts["contour", value].points]
        assert {point.z for point in parts["contour", value].points} == {0.25}
        drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
        # Lines come in pairs; the first point of each goes once around.
        polygon = np.array(corners[::2]) - 0.5
        cv2.fillPoly(drawn, [polygon.round().astype(np.int32)], 1)
        union = (drawn > 0) | entry.mask
        assert ((drawn > 0) & entry.mask).sum() / union.sum() > 0.97
        assert corners[1::2] == [*corners[2::2], corners[0]]
        x, y = pixel(parts["name", value].pose.position)
        assert (x, y) == pytest.approx(((entry.box[0] + entry.box[2]) / 2, entry.box[1]))


def test_targets_out_of_sight_are_listed_inside_the_picture():
    nothing = blob(0, 0, -99)
    result = session_result(
        ("one", nothing, TrackState.OCCLUDED), ("two", nothing, TrackState.LOST)
    )
    names = list(by_part(markers_message(result)).values())
    assert [marker.text for marker in names] == ["one: hook 75% (occluded)", "two: hook 75% (lost)"]
    places = [pixel(marker.pose.position) for marker in names]
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in places)
    assert places[0][1] < places[1][1]


@pytest.mark.parametrize("fill", [0.02, 0.3, 0.9])
def test_a_ragged_mask_makes_no_flood_of_points(fill):
    mask = np.random.default_rng(4).random((200, 240)) < fill
    polygons = contours(mask, encode_mask(mask).box)
    assert 0 < sum(map(len, polygons)) <= MAX_POINTS


def test_plane_shows_the_whole_field_of_view():
    plane = ImagePlane(distance=2.0, field_of_view=math.pi / 2)
    assert plane.metres_per_pixel(100) * 100 == pytest.approx(4.0)
