"""The validation suites and the training ground: which seeds, which ranges, how long.

Suites are lists of clips defined by seeds; their frames are rendered when asked for, or read from a
cache. Training draws from `TRAINING`, whose seeds no suite uses; `val-shift` draws some of its
parameters from outside training's ranges.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from sam2s_model.synth.errors import SuiteError
from sam2s_model.synth.ranges import Range, SceneRanges
from sam2s_model.synth.scene import SurgicalScene
from sam2s_model.synth.sequence import RenderedSequence, cache_folder

# Raised whenever the same seed gives other pixels, so that old caches and scores are told apart.
RENDERER_VERSION = 1


class Training(NamedTuple):
    """What training may draw from."""

    seeds: range
    ranges: SceneRanges


TRAINING = Training(seeds=range(1_000_000, 2_000_000_000), ranges=SceneRanges())

# Where val-shift lies: every pair is disjoint from training's range of the same name.
SHIFTED: dict[str, Range] = {
    "tissue_red": (0.78, 0.87),
    "tissue_green": (1.09, 1.18),
    "tissue_blue": (0.64, 0.76),
    "gloss": (1.30, 1.55),
    "folds": (1.45, 1.75),
    "shaft_radius": (0.074, 0.088),
    "tremor": (0.008, 0.012),
    "falloff": (0.80, 1.05),
    "light_offset": (0.18, 0.24),
    "noise": (0.025, 0.038),
    "saturation": (0.62, 0.80),
    "white_blue": (1.14, 1.24),
    "zoom": (1.30, 1.48),
    "roll": (0.26, 0.45),
    "vignette": (0.88, 0.99),
}


@dataclasses.dataclass(frozen=True)
class Clip:
    """One clip, defined by its seed; its repr tells it from every other."""

    suite: str
    name: str
    seed: int
    frames: int
    fps: float
    width: int
    height: int
    overrides: tuple[tuple[str, Range], ...] = ()
    theme: str | None = None
    version: int = RENDERER_VERSION

    def scene(self) -> SurgicalScene:
        """Make the clip's scene."""
        return SurgicalScene(
            self.seed,
            self.width,
            self.height,
            fps=self.fps,
            overrides=dict(self.overrides),
            theme=self.theme,
        )

    def open(self, cache: bool | None = None) -> RenderedSequence:
        """Open the clip: frames and masks of its targets, rendered on demand.

        The targets are those visible on the first frame with enough area; others are background.
        With `cache`, or where $SAM2S_CACHE is set, rendered frames are kept as PNG files and read
        back; several processes may share the folder.
        """
        folder = cache_folder(cache)
        return RenderedSequence(
            self.scene(),
            self.frames,
            folder / self.suite if folder else None,
            self.name,
            repr(self),
        )


@dataclasses.dataclass(frozen=True)
class Suite:
    """A named list of clips."""

    name: str
    about: str
    clips: tuple[Clip, ...]


def _clips(
    suite: str,
    first_seed: int,
    count: int,
    frames: int,
    size: tuple[int, int],
    overrides: dict[str, Range] | None = None,
) -> tuple[Clip, ...]:
    # Themes in turn, so that every suite shows as many operations as it has clips for.
    return tuple(
        Clip(
            suite,
            f"{suite}-{i:02d}",
            first_seed + i,
            frames,
            25.0,
            *size,
            tuple((overrides or {}).items()),
            THEME_ORDER[i % len(THEME_ORDER)],
        )
        for i in range(count)
    )


THEME_ORDER = (
    "cholecystectomy",
    "colectomy",
    "gynecology",
    "nephrectomy",
    "splenectomy",
    "hepatectomy",
    "polypectomy",
)

SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite("smoke", "seconds; for tests", _clips("smoke", 100, 2, 12, (160, 128))),
        Suite(
            "val-short",
            "24 clips of 120 frames, like training",
            _clips("val-short", 1000, 24, 120, (480, 384)),
        ),
        Suite(
            "val-long",
            "6 clips of two minutes: targets leave and come back, look-alikes",
            _clips(
                "val-long",
                2000,
                6,
                3000,
                (480, 384),
                {
                    "instruments": (2.6, 4.4),
                    "lookalikes": (1.0, 1.0),
                    "present": (10.0, 18.0),
                    "absent": (5.0, 16.0),
                    "elsewhere": (0.5, 0.9),
                    "out_every": (35.0, 70.0),
                },
            ),
        ),
        Suite(
            "val-hard",
            "blood, smoke, camera out, look-alikes that cross",
            _clips(
                "val-hard",
                3000,
                12,
                400,
                (480, 384),
                {
                    "instruments": (2.6, 4.4),
                    "lookalikes": (1.0, 1.0),
                    "crossing": (0.4, 0.6),
                    "bleeding": (0.45, 0.6),
                    "bleeding_time": (4.0, 10.0),
                    "smoke": (0.4, 0.55),
                    "stained": (0.5, 0.8),
                    "out_every": (9.5, 11.0),
                    "droplets": (2.0, 5.4),
                    "absent": (3.0, 6.0),
                    "present": (6.0, 12.0),
                },
            ),
        ),
        Suite(
            "val-shift",
            "colours, light, sizes and sensors outside training's ranges",
            _clips("val-shift", 4000, 12, 120, (480, 384), SHIFTED),
        ),
    )
}


def load_suite(name: str) -> Suite:
    """Find a suite by its name."""
    if name not in SUITES:
        raise SuiteError(f"no suite {name!r}; there are {', '.join(SUITES)}")
    return SUITES[name]
