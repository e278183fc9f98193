"""A clip of a scene as a sequence of frames and masks, with an optional cache of PNG files."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sam2s_model.classes import TISSUES
from sam2s_model.synth.errors import SceneError, SuiteError
from sam2s_model.synth.scene import Shot, SurgicalScene
from sam2s_model.whole_file import whole_file

CACHE_VARIABLE = "SAM2S_CACHE"
DEFAULT_CACHE = Path("~/.cache/sam2s")
MIN_SHARE = 0.002  # of the picture that a target must fill on the first frame
MAX_TISSUES = 2  # the largest are targets; instruments and thin things always are
MIN_VISIBLE = 0.25  # share of a target's own pixels that must be seen on the first frame
THIN_SHARE = 0.0005  # MIN_SHARE of needle and thread
THIN = ("suturing needle", "thread")


def cache_folder(cache: bool | None) -> Path | None:
    """Choose the cache: none, $SAM2S_CACHE, or the default folder where `cache` is true."""
    named = os.environ.get(CACHE_VARIABLE)
    if cache is False or (cache is None and not named):
        return None
    return Path(named).expanduser() if named else DEFAULT_CACHE.expanduser()


class RenderedSequence:
    """Frames of a scene from 0 on; the masks show the first frame's targets alone.

    frame(i) is uint8 H×W×3 RGB, masks(i) int32 H×W instance ids, `classes` their names. The last
    shot is kept, so that asking for frame and masks renders once.
    """

    def __init__(
        self,
        scene: SurgicalScene,
        frames: int,
        folder: Path | None = None,
        name: str = "clip",
        definition: str = "",
    ) -> None:
        self.scene, self.fps, self._frames = scene, scene.fps, frames
        self._folder: Path | None = None
        if folder is not None:
            digest = hashlib.sha256(definition.encode()).hexdigest()[:12]
            self._folder = folder / f"{name}-{digest}"
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise SuiteError(
                    f"the cache folder {self._folder} cannot be made ({error.strerror}); set "
                    f"${CACHE_VARIABLE} to one that can be written"
                ) from error
        self._last: tuple[int, NDArray[np.uint8], NDArray[np.uint8]] | None = None

    def __len__(self) -> int:
        return self._frames

    @functools.cached_property
    def targets(self) -> tuple[int, ...]:
        """Ids to prompt on the first frame."""
        return first_targets(self.scene.render(0))

    @property
    def classes(self) -> Mapping[int, str]:
        """Class name of each target."""
        return {i: self.scene.classes[i] for i in self.targets}

    def frame(self, index: int) -> NDArray[np.uint8]:
        """Frame `index`, uint8 H×W×3 RGB."""
        return self._shot(index)[1]

    def masks(self, index: int) -> NDArray[np.int32]:
        """Instance ids of frame `index`, int32 H×W, 0 background."""
        ids = self._shot(index)[2].astype(np.int32)
        ids[~np.isin(ids, self.targets)] = 0
        return ids

    def _shot(self, index: int) -> tuple[int, NDArray[np.uint8], NDArray[np.uint8]]:
        if not 0 <= index < self._frames:
            raise SceneError(f"frame {index} of a clip of {self._frames} frames")
        if self._last is None or self._last[0] != index:
            self._last = self._read(index) or self._render(index)
        return self._last

    def _render(self, index: int) -> tuple[int, NDArray[np.uint8], NDArray[np.uint8]]:
        shot = self.scene.render(index)
        if self._folder is not None:
            # Colour and ids in one file of four channels: never one without the other.
            packed = np.dstack((shot.image, shot.masks))
            _write_png(self._folder / f"{index:05d}.png", packed)
        return index, shot.image, shot.masks

    def _read(self, index: int) -> tuple[int, NDArray[np.uint8], NDArray[np.uint8]] | None:
        if self._folder is None:
            return None
        import cv2

        path = self._folder / f"{index:05d}.png"
        packed = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.exists() else None
        if packed is None or packed.shape != (self.scene.height, self.scene.width, 4):
            return None  # not there, or cut off by a crash of the disk: rendered again
        packed = np.asarray(packed, np.uint8)
        return index, np.ascontiguousarray(packed[:, :, :3]), np.ascontiguousarray(packed[:, :, 3])


def first_targets(shot: Shot) -> tuple[int, ...]:
    """Choose what to prompt on a first frame: what is in view with enough area."""
    counts = np.bincount(shot.masks.ravel(), minlength=max(shot.classes, default=0) + 1)
    total = shot.masks.size

    def fits(identity: int, name: str) -> bool:
        share = THIN_SHARE if name in THIN else MIN_SHARE
        return counts[identity] >= share * total and shot.visibility[identity] >= MIN_VISIBLE

    fitting = [i for i, name in shot.classes.items() if fits(i, name)]
    tissues = [i for i in fitting if shot.classes[i] in TISSUES]
    largest = sorted(tissues, key=lambda i: -int(counts[i]))[:MAX_TISSUES]
    return tuple(i for i in fitting if i not in tissues or i in largest)


def _write_png(path: Path, packed: NDArray[np.uint8]) -> None:
    import cv2

    ok, data = cv2.imencode(".png", packed, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not ok:
        raise SuiteError(f"{path} cannot be encoded as PNG")
    try:
        with whole_file(path) as part:
            part.write_bytes(data.tobytes())
    except OSError as error:
        raise SuiteError(f"{path} cannot be written: {error.strerror}") from error
