"""RViz markers of a frame's targets: contours, centroids and names in a plane before the camera.

One camera gives no depth, so pixels are put onto a plane at a fixed distance along the optical
frame's z axis (x to the right, y down), through a pinhole whose principal point is the centre of
the picture.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Vector3
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from sam2s_model.result import TrackState
from sam2s_ros.headers import header_message
from sam2s_ros.image_plane import ImagePlane
from sam2s_ros.overlay import caption_of, target_colour
from sam2s_ros.session_types import SessionObject, SessionResult

LIFETIME = 1.0  # seconds; markers of a tracker that says nothing any more vanish
MAX_POINTS = 200  # of one contour: each is a message of its own
FADED = 0.35  # opacity of what is not tracked


def markers_message(result: SessionResult, plane: ImagePlane | None = None) -> MarkerArray:
    """Make the markers of one frame. The first one deletes those of the frame before."""
    plane = plane or ImagePlane()
    header = header_message(result.stamp_ns, result.frame_id)
    canvas = _Canvas(header, result.height, result.width, plane)
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    unseen = 0
    for entry in result.objects:
        if entry.box is not None and entry.centroid is not None:
            markers.extend(canvas.seen(entry))
        else:
            markers.append(canvas.unseen(entry, unseen))
            unseen += 1
    return MarkerArray(markers=markers)


class _Canvas:
    """Draws targets of one picture size into a plane."""

    def __init__(self, header: Header, height: int, width: int, plane: ImagePlane) -> None:
        self._header, self._plane = header, plane
        self._scale = plane.metres_per_pixel(width)
        self._centre = (width / 2, height / 2)
        self._text = 0.035 * height * self._scale  # metres, of a capital letter

    def seen(self, entry: SessionObject) -> Iterator[Marker]:
        """Contours, centroid and name of a target that has a mask."""
        assert entry.box is not None
        assert entry.centroid is not None
        lines = self._marker(entry, Marker.LINE_LIST, "contour")
        lines.scale = Vector3(x=0.1 * self._text)  # the width of the line
        for contour in contours(entry.mask, entry.box):
            points = [self._point(x, y) for x, y in contour.tolist()]
            for k, point in enumerate(points):
                lines.points += [point, points[(k + 1) % len(points)]]
        yield lines
        dot = self._marker(entry, Marker.SPHERE, "centroid")
        dot.scale = Vector3(x=0.5 * self._text, y=0.5 * self._text, z=0.5 * self._text)
        dot.pose.position = self._point(*entry.centroid)
        yield dot
        yield self._name(entry, (entry.box[0] + entry.box[2]) / 2, entry.box[1])

    def unseen(self, entry: SessionObject, line: int) -> Marker:
        """The name of a target without a mask, listed in the upper left corner."""
        per_line = 1.2 * self._text / self._scale
        return self._name(entry, 6 * per_line, (line + 1) * per_line)

    def _name(self, entry: SessionObject, x: float, y: float) -> Marker:
        text = self._marker(entry, Marker.TEXT_VIEW_FACING, "name")
        text.scale = Vector3(z=self._text)
        text.pose.position = self._point(x, y)
        text.text = caption_of(entry)
        return text

    def _marker(self, entry: SessionObject, kind: int, part: str) -> Marker:
        red, green, blue = target_colour(entry)
        opacity = 1.0 if entry.state is TrackState.TRACKING else FADED
        marker = Marker(header=self._header, ns=part, id=entry.label_value, type=kind)
        marker.color = ColorRGBA(r=red / 255, g=green / 255, b=blue / 255, a=opacity)
        marker.lifetime = Duration(sec=int(LIFETIME), nanosec=int(LIFETIME % 1 * 1e9))
        marker.pose.orientation.w = 1.0
        return marker

    def _point(self, x: float, y: float) -> Point:
        """Put a point of the picture, in pixels, onto the plane."""
        return Point(
            x=(x - self._centre[0]) * self._scale,
            y=(y - self._centre[1]) * self._scale,
            z=self._plane.distance,
        )


def contours(mask: NDArray[np.bool_], box: tuple[int, int, int, int]) -> list[NDArray[np.float64]]:
    """Find the outer borders of a mask as closed polygons of pixel centres, (N, 2) x and y.

    `box` bounds the mask. Polygons are within a pixel of the border, or as close as so few points
    allow; of many pieces the largest are kept.
    """
    x0, y0, x1, y1 = box
    bits = np.ascontiguousarray(mask[y0:y1, x0:x1]).view(np.uint8)
    found, _ = cv2.findContours(bits, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    polygons: list[NDArray[np.float64]] = []
    room = MAX_POINTS
    for border in sorted(found, key=len, reverse=True):
        tolerance = 1.0  # pixels
        polygon = cv2.approxPolyDP(border, tolerance, True)
        while not polygons and len(polygon) > room:
            tolerance *= 1.5
            polygon = cv2.approxPolyDP(border, tolerance, True)
        if len(polygon) > room:
            break
        room -= len(polygon)
        polygons.append(polygon[:, 0, :] + np.array([x0 + 0.5, y0 + 0.5]))
    return polygons
