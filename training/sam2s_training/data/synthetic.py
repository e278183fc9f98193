"""Clips from the simulated endoscope, rendered when they are asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam2s_model.classes import INSTRUMENTS, TISSUES
from sam2s_model.synth import TRAINING, SceneRanges, SurgicalScene, render_batch
from sam2s_model.synth.instruments import CATALOGUE
from sam2s_model.synth.ranges import Range
from sam2s_model.synth.sequence import THIN
from sam2s_training.data.clip import NO_CLASS, Clip, randomness
from sam2s_training.data.errors import DataSettingError, NoTargetError
from sam2s_training.data.resize import resize_ids, resize_images
from sam2s_training.data.sampler import SamplerSettings, draw_frames

MOST_OUTSIDE = 0.2  # of the camera's way out of the body on the first frame; more shows no target
WELL_IN = 0.7  # presence from which an instrument counts as in on the first frame
CANDIDATES = 8  # draws of frame numbers, of which the first that promises a target is taken
LOOKS = 300  # times, spread over a scene, at which its motion is evaluated for that
SAME_SCENE_TRIES = 4  # first frames without a target before another scene is taken
TRIES = 16  # after which the settings are at fault, not chance


@dataclass(frozen=True)
class SyntheticSettings:
    """What is rendered, and what of it becomes a target."""

    seconds: float = 60.0  # length of a scene's video, over which the sampler draws its frames
    fps: float = 25.0
    aspect: float = 1.25  # width over height of the rendered frames, before they are made square
    scale: float = 1.0  # height of the rendered frames over that of the network's input
    max_targets: int = 3  # targets of a clip, fewer where fewer can be seen
    min_share: float = 0.0015  # of the picture that a target fills on the first frame
    thin_share: float = 0.0005  # the same for needle and thread
    min_visible: float = 0.25  # share of a target's pixels in view that must not be hidden there
    tissue_weight: float = 0.25  # chance of a tissue to be chosen, relative to an instrument
    instrument_first: float = 0.9  # share of the clips that want an instrument on the first frame
    scenes: int = 16  # scenes in turn, so that the clips of a batch show different ones
    # Clips before a scene is replaced, which costs the time of some 20 frames; None: 8, and of
    # clips with few frames so many that a scene gives 32 frames.
    clips_per_scene: int | None = None
    # Narrower ranges of the scene's parameters, such as {"bleeding": (0.4, 0.6)}; a number fixes.
    overrides: Mapping[str, float | Range] = field(default_factory=dict)

    def __post_init__(self) -> None:
        positive = ("seconds", "fps", "aspect", "scale", "max_targets", "scenes", "clips_per_scene")
        for name in positive:
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise DataSettingError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("min_share", "thin_share", "min_visible", "tissue_weight", "instrument_first"):
            if not 0 <= getattr(self, name) <= 1:
                raise DataSettingError(f"{name} is {getattr(self, name)}; a share is 0 to 1")
        self.ranges()

    def ranges(self) -> SceneRanges:
        """Narrow the training ranges; whatever lies outside them belongs to the suites."""
        narrowed = TRAINING.ranges.with_(self.overrides)
        for name in self.overrides:
            low, high = getattr(narrowed, name)
            lowest, highest = getattr(TRAINING.ranges, name)
            if low < lowest or high > highest:
                raise DataSettingError(
                    f"override {name} ({low}, {high}) leaves training's range ({lowest}, "
                    f"{highest}); what lies outside is kept for the evaluation suites"
                )
        return narrowed


class _Scene(NamedTuple):
    """A scene, and what its video promises to show when."""

    scene: SurgicalScene
    inside: NDArray[np.bool_]  # [LOOKS], the camera is in the body
    tools: NDArray[np.bool_]  # [LOOKS], an instrument is in the body too

    @staticmethod
    def look(scene: SurgicalScene, length: int) -> _Scene:
        """Evaluate the motion over `length` frames; rendering tells more, and costs more."""
        state = scene.state(np.arange(LOOKS) * length // LOOKS)
        inside = state.camera.outside <= MOST_OUTSIDE
        if state.poses is None:
            return _Scene(scene, inside, np.zeros_like(inside))
        return _Scene(scene, inside, inside & (state.poses.amount >= WELL_IN).any(axis=1))


class _Draw(NamedTuple):
    """A clip before it is rendered."""

    scene: SurgicalScene
    frames: NDArray[np.int64]  # [T]
    random: np.random.Generator  # for the choice of targets


class SyntheticSource:
    """Clips of scenes whose seeds no suite uses.

    `scenes` scenes take turns: clip i shows scene i mod `scenes`, and each is replaced after
    `clips_per_scene` clips, not all at the same time.

    Args:
        size: S, pixels of the network's square input.
        settings: what is rendered.
        sampler: which frames make a clip.
        seed: another seed gives other scenes.
        instruments: the text bank's instruments, in its order.
        device: where to render; the clips stay there.
    """

    def __init__(
        self,
        size: int,
        settings: SyntheticSettings | None = None,
        sampler: SamplerSettings | None = None,
        *,
        seed: int = 0,
        instruments: Sequence[str] = INSTRUMENTS,
        device: torch.device | str = "cpu",
    ) -> None:
        self.settings = settings or SyntheticSettings()
        self.sampler = sampler or SamplerSettings()
        self.size, self.seed, self.device = size, seed, torch.device(device)
        self.length = max(round(self.settings.seconds * self.settings.fps), 1)
        self.height = round(self.settings.scale * size)
        self.width = round(self.settings.aspect * self.height)
        self.clips_per_scene = self.settings.clips_per_scene or max(8, 32 // self.sampler.frames)
        self._ranges = self.settings.ranges()
        self._class_of = _class_numbers(instruments)
        self._scenes: OrderedDict[tuple[int, int], _Scene] = OrderedDict()

    def __getstate__(self) -> dict[str, object]:
        """Leave the scenes behind on the way to another process; they are made anew there."""
        return {**self.__dict__, "_scenes": OrderedDict()}

    def sample(self, index: int) -> Clip:
        """Render clip `index`."""
        return self.samples([index])[0]

    def samples(self, indices: Sequence[int]) -> list[Clip]:
        """Render several clips in one batch."""
        clips: dict[int, Clip] = {}
        wanted = list(range(len(indices)))
        for attempt in range(TRIES):
            draws = [self._draw(indices[i], attempt) for i in wanted]
            made = self._render(draws, [indices[i] for i in wanted])
            clips.update((i, clip) for i, clip in zip(wanted, made, strict=True) if clip)
            wanted = [i for i in wanted if i not in clips]
            if not wanted:
                return [clips[i] for i in range(len(indices))]
        raise NoTargetError(
            f"clip {indices[wanted[0]]} of the simulated endoscope (seed {self.seed}): no first "
            f"frame of {TRIES} showed a target; lower min_share or min_visible, or widen overrides"
        )

    def _draw(self, index: int, attempt: int) -> _Draw:
        random = randomness(self.seed, index, attempt)
        turn, slot = divmod(index, self.settings.scenes)
        scene = self._scene(slot, turn) if attempt < SAME_SCENE_TRIES else self._make_scene(random)
        draws = [draw_frames(self.sampler, self.length, random) for _ in range(CANDIDATES)]
        # A preference, not a promise: the rendered frame decides what can be prompted.
        want_tool = random.random() < self.settings.instrument_first
        first = np.array([frames[0] for frames in draws]) * LOOKS // self.length
        good = scene.inside[first].astype(np.int64) + (scene.tools[first] & want_tool)
        return _Draw(scene.scene, draws[int(np.argmax(good))], random)

    def _scene(self, slot: int, turn: int) -> _Scene:
        clips, scenes = self.clips_per_scene, self.settings.scenes
        # The slots' replacements are spread evenly over the turns.
        key = (slot, (turn + slot * clips // scenes) // clips)
        if key not in self._scenes:
            self._scenes[key] = self._make_scene(randomness(self.seed, *key, 0, 0))
        self._scenes.move_to_end(key)
        while len(self._scenes) > scenes:
            self._scenes.popitem(last=False)
        return self._scenes[key]

    def _make_scene(self, random: np.random.Generator) -> _Scene:
        seeds = TRAINING.seeds
        scene = SurgicalScene(
            seeds[int(random.integers(len(seeds)))],
            self.width,
            self.height,
            fps=self.settings.fps,
            ranges=self._ranges,
        )
        return _Scene.look(scene, self.length)

    def _render(self, draws: Sequence[_Draw], indices: Sequence[int]) -> list[Clip | None]:
        shots = [(draw.scene, int(n)) for draw in draws for n in draw.frames]
        frames = render_batch(shots, self.device)
        count = self.sampler.frames
        images = resize_images(frames.images, self.size)  # [clips * T, 3, S, S]
        ids = resize_ids(frames.masks, self.size)
        visible = frames.visible[::count].cpu().numpy()
        areas = frames.areas[::count].cpu().numpy()
        clips: list[Clip | None] = []
        for i, draw in enumerate(draws):
            targets = self._choose(draw, visible[i], areas[i])
            if not targets:
                clips.append(None)
                continue
            part = slice(i * count, (i + 1) * count)
            clips.append(
                Clip(
                    images[part],
                    _masks(ids[part], targets),
                    torch.tensor(
                        [self._class_of[draw.scene.classes[t]] for t in targets],
                        device=self.device,
                    ),
                    f"synthetic {indices[i]} (scene {draw.scene.seed}, "
                    f"frames {' '.join(map(str, draw.frames))})",
                    tuple(int(frame) for frame in draw.frames),
                    self.sampler.long,
                )
            )
        return clips

    def _choose(
        self, draw: _Draw, visible: NDArray[np.int64], areas: NDArray[np.int64]
    ) -> list[int]:
        """Draw the targets among what the first frame shows well enough."""
        s = self.settings
        fitting, weights = [], []
        for identity, name in draw.scene.classes.items():
            share = s.thin_share if name in THIN else s.min_share
            seen = visible[identity]
            # At least one pixel a target, however low the shares are set.
            enough = seen >= max(share * self.width * self.height, 1)
            if enough and seen >= s.min_visible * areas[identity]:
                fitting.append(identity)
                weights.append(s.tissue_weight if name in TISSUES else 1.0)
        # Drawing without repeats, by weight: the largest of u^(1/w), after Efraimidis and Spirakis.
        keys = [draw.random.random() ** (1.0 / weight) if weight else -1.0 for weight in weights]
        order = np.argsort(keys)[::-1]
        return [fitting[i] for i in order[: s.max_targets] if keys[i] >= 0]


def _masks(ids: Tensor, targets: Sequence[int]) -> Tensor:
    """Split ids [T, S, S] into one mask a target: bool [N, T, S, S]."""
    wanted = torch.tensor(list(targets), dtype=ids.dtype, device=ids.device)
    return ids[None] == wanted[:, None, None, None]


def _class_numbers(instruments: Sequence[str]) -> dict[str, int]:
    """Number each class a scene can show; refuse a bank that lacks one of its instruments."""
    lacking = [name for name in (*CATALOGUE, *THIN) if name not in instruments]
    if lacking:
        raise DataSettingError(
            f"the text bank lacks instruments of the simulated endoscope: {', '.join(lacking)}; "
            "add them to the bank, or train on another source"
        )
    numbers = {name: number for number, name in enumerate(instruments)}
    return dict.fromkeys(TISSUES, NO_CLASS) | numbers
