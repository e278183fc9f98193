"""The simulated endoscope's door: a scene by its seed, a shot by its frame number."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sam2s_model.classes import TISSUES
from sam2s_model.synth.anatomy import THEMES, draw_layout
from sam2s_model.synth.camera import camera_track
from sam2s_model.synth.cast import choose_tools
from sam2s_model.synth.errors import SceneError
from sam2s_model.synth.instruments import CATALOGUE
from sam2s_model.synth.ranges import Range, SceneRanges
from sam2s_model.synth.render import Frames, render_batch
from sam2s_model.synth.state import FrameState, frame_state
from sam2s_model.synth.tissue import TissueMap, build_tissue

MAX_TOOLS = 12
SIZES = (32, 4096)  # smallest and largest width and height, pixels
THIN_FROM = 0.75  # a scene's draw of `needle` or `thread` above this puts one in


class Camera(NamedTuple):
    """The endoscope's pose and state in one frame."""

    world_to_pixel: NDArray[np.float64]  # [2, 3], of the tissue plane before tilt and deformation
    x: float  # world point in the middle of the picture, half picture heights
    y: float
    zoom: float
    roll: float  # radians
    outside: float  # 0 in the body … 1 outside
    defocus: float  # 0 sharp … 1


class Shot(NamedTuple):
    """One rendered frame."""

    image: NDArray[np.uint8]  # H×W×3 RGB
    masks: NDArray[np.uint8]  # H×W instance ids, 0 background; visible pixels only
    classes: dict[int, str]  # every id of the scene, in view or not: its name in the bank
    visibility: dict[int, float]  # share of a target's pixels in view that are seen; 0: absent
    camera: Camera


class SurgicalScene:
    """An operation seen through an endoscope, a pure function of seed and frame number.

    Example:
        scene = SurgicalScene(seed=7, width=640, height=512)
        shot = scene.render(0)

    `overrides` fix (a number) or narrow (a pair) any field of `SceneRanges`. `instruments` names
    the instruments' classes and `theme` the anatomy where the seed should not choose them.
    """

    def __init__(
        self,
        seed: int,
        width: int = 640,
        height: int = 512,
        *,
        fps: float = 25.0,
        ranges: SceneRanges | None = None,
        overrides: Mapping[str, float | Range] | None = None,
        instruments: Sequence[str] | None = None,
        theme: str | None = None,
    ) -> None:
        _check(width, height, fps, instruments, theme)
        self.seed, self.width, self.height, self.fps = seed, width, height, fps
        self.ranges = (ranges or SceneRanges()).with_(overrides or {})
        self.values = self.ranges.draw(seed)
        self.layout = draw_layout(seed, theme)
        self._tools = choose_tools(seed, self.values, instruments, self.layout.theme)
        self.classes: dict[int, str] = {tool.identity: tool.name for tool in self._tools}
        self._needle = self._thin("suturing needle", self.values["needle"])
        self._thread = self._thin("thread", self.values["thread"])
        first = len(self.classes) + 1
        self.organs: dict[int, str] = {
            first + i: organ.name for i, organ in enumerate(self.layout.organs)
        }
        self.classes.update(self.organs)
        self._maps: dict[torch.device, TissueMap] = {}
        self._lock = threading.Lock()

    def _thin(self, name: str, draw: float) -> int:
        if draw < THIN_FROM:
            return 0
        identity = len(self.classes) + 1
        self.classes[identity] = name
        return identity

    def render(self, n: int, device: torch.device | str = "cpu") -> Shot:
        """Render frame n; no other frame is needed for it."""
        return self.shots([n], device)[0]

    def shots(self, numbers: Sequence[int], device: torch.device | str = "cpu") -> list[Shot]:
        """Render several frames in one batch."""
        frames = render_batch([(self, n) for n in numbers], device)
        images, masks = frames.images.cpu().numpy(), frames.masks.cpu().numpy()
        cameras = self.cameras(numbers)
        return [
            Shot(images[i], masks[i], dict(self.classes), self._visibility(frames, i), cameras[i])
            for i in range(len(numbers))
        ]

    def _visibility(self, frames: Frames, i: int) -> dict[int, float]:
        areas, seen = frames.areas[i].tolist(), frames.visible[i].tolist()
        return {k: min(1.0, seen[k] / areas[k]) if areas[k] else 0.0 for k in self.classes}

    def state(self, numbers: NDArray[np.int64] | Sequence[int]) -> FrameState:
        """Evaluate everything that moves, at the given frame numbers."""
        return frame_state(
            self.seed,
            self.values,
            self._tools,
            self._needle,
            self._thread,
            _checked(numbers),
            self.fps,
        )

    def cameras(self, numbers: Sequence[int]) -> list[Camera]:
        """Where the camera is in the given frames."""
        track = camera_track(self.seed, self.values, _checked(numbers) / self.fps)
        half = self.height / 2.0
        out = []
        for i in range(len(numbers)):
            zoom, roll = float(track.zoom[i]), float(track.roll[i])
            cos, sin = zoom * np.cos(roll) * half, zoom * np.sin(roll) * half
            x, y = float(track.x[i]), float(track.y[i])
            matrix = np.array(
                [
                    [cos, sin, self.width / 2.0 - 0.5 - cos * x - sin * y],
                    [-sin, cos, self.height / 2.0 - 0.5 + sin * x - cos * y],
                ]
            )
            out.append(
                Camera(matrix, x, y, zoom, roll, float(track.outside[i]), float(track.defocus[i]))
            )
        return out

    def tissue(self, device: torch.device) -> TissueMap:
        """Make the tissue map on the device at first use, and keep it."""
        with self._lock:
            if device not in self._maps:
                v = self.values
                self._maps[device] = build_tissue(
                    self.seed,
                    self.layout,
                    map_size(self.height),
                    device,
                    hue=(v["tissue_red"], v["tissue_green"], v["tissue_blue"]),
                    vessels=v["vessels"],
                    fold=v["folds"],
                    gloss=v["gloss"],
                )
            return self._maps[device]

    def organ_ids(self, device: torch.device) -> torch.Tensor:
        """Map organ number (0 background) to instance id: uint8 [organs + 1]."""
        return torch.tensor([0, *self.organs], dtype=torch.uint8, device=device)


def _checked(numbers: NDArray[np.int64] | Sequence[int]) -> NDArray[np.int64]:
    frames = np.asarray(numbers)
    if frames.size and (frames.dtype.kind not in "iu" or frames.min() < 0):
        raise SceneError(f"frame numbers count from 0 and are whole; got {frames.min()}")
    return frames.astype(np.int64)


def map_size(height: int) -> int:
    """Texels across the tissue map for a picture of this height: about one a pixel."""
    return int(min(max(5 * height // 2, 320), 1792)) // 32 * 32


def _check(
    width: int, height: int, fps: float, instruments: Sequence[str] | None, theme: str | None
) -> None:
    low, high = SIZES
    for name, value in (("width", width), ("height", height)):
        if not low <= value <= high:
            raise SceneError(f"{name} {value} is outside {low}…{high} pixels")
    if not fps > 0:
        raise SceneError(f"fps must be above 0, got {fps}")
    if theme is not None and theme not in THEMES:
        raise SceneError(f"no theme {theme!r}; there are {', '.join(THEMES)}")
    if instruments is None:
        return
    if len(instruments) > MAX_TOOLS:
        raise SceneError(f"{len(instruments)} instruments in one scene; at most {MAX_TOOLS}")
    for name in instruments:
        if name not in CATALOGUE:
            hint = " (a tissue; `theme` chooses those)" if name in TISSUES else ""
            raise SceneError(
                f"no instrument {name!r}{hint}; there are {', '.join(CATALOGUE)}; needle and "
                "thread come with overrides={'needle': 1, 'thread': 1}"
            )
