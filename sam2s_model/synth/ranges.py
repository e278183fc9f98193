"""What varies from scene to scene: every parameter's range, with its unit and meaning.

A scene draws one value from each range by its seed (domain randomisation); overriding a range with
a pair narrows it, with a number fixes it. Lengths are in half picture heights, so that they mean
the same at every resolution; times are in seconds.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping

from sam2s_model.synth.errors import SceneError
from sam2s_model.synth.noise import uniform_one

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class SceneRanges:
    """The ranges a scene's values are drawn from, each (low, high)."""

    # Tissue
    tissue_red: Range = (0.90, 1.06)  # colour gain of tissue, red
    tissue_green: Range = (0.82, 1.06)  # colour gain of tissue, green
    tissue_blue: Range = (0.80, 1.10)  # colour gain of tissue, blue
    vessels: Range = (0.4, 1.2)  # opacity of the vessel network
    folds: Range = (0.6, 1.4)  # height of folds and bulges
    gloss: Range = (0.6, 1.25)  # wetness
    breathing: Range = (0.0, 0.035)  # amplitude of the tissue's slow sway
    push: Range = (0.02, 0.10)  # how far an instrument pushes tissue
    # Instruments
    instruments: Range = (1.6, 4.6)  # how many; rounded
    lookalikes: Range = (0.0, 1.0)  # above 0.5 two instruments share class and colours
    crossing: Range = (0.0, 0.6)  # how far an instrument strays to the others' side, 0…1
    shaft_radius: Range = (0.040, 0.070)  # of an instrument of relative radius 1
    taper: Range = (0.004, 0.013)  # growth of a shaft towards the lens, per shaft radius
    rest: Range = (0.5, 2.5)  # time from one stroke to the next
    stroke: Range = (0.16, 0.9)  # time a stroke takes
    reach: Range = (0.35, 0.65)  # radius of the tips' working area
    tremor: Range = (0.0, 0.006)  # amplitude of hand tremor
    present: Range = (10.0, 40.0)  # how long an instrument stays in before it is drawn out
    absent: Range = (3.0, 20.0)  # how long it stays out
    elsewhere: Range = (0.2, 0.7)  # probability of coming back through another port
    stained: Range = (0.0, 0.8)  # blood on instruments
    thread: Range = (0.0, 1.0)  # above 0.75 there is a thread
    needle: Range = (0.0, 1.0)  # above 0.75 there is a suturing needle
    # Light and sensor
    light: Range = (0.85, 1.25)  # brightness of the light source
    falloff: Range = (0.25, 0.75)  # loss of light towards the picture's border
    light_offset: Range = (0.03, 0.16)  # the light's distance from the lens: highlights, shadows
    shadow: Range = (0.35, 0.75)  # depth of the instruments' shadows
    auto_exposure: Range = (0.2, 0.8)  # how far exposure follows the picture's mean, 0…1
    white_red: Range = (0.92, 1.08)  # white balance, red gain
    white_blue: Range = (0.90, 1.12)  # white balance, blue gain
    noise: Range = (0.004, 0.022)  # sensor noise, share of full scale
    saturation: Range = (0.85, 1.15)
    # Camera
    zoom: Range = (0.92, 1.25)  # mean magnification
    zoom_swing: Range = (0.0, 0.22)  # how far it moves in and out, share of the zoom
    pan: Range = (0.05, 0.35)  # how far it looks around
    roll: Range = (0.0, 0.22)  # rolls up to, radians
    camera_rest: Range = (2.0, 7.0)  # time from one camera move to the next
    camera_stroke: Range = (0.35, 1.8)  # time a camera move takes
    shake: Range = (0.0, 0.006)  # amplitude of the holder's shake
    vignette: Range = (1.02, 2.3)  # radius of the round image, half heights
    defocus: Range = (0.0, 0.45)  # worst blur, 0…1
    motion_blur: Range = (0.2, 0.6)  # shutter, share of the frame time
    interlace: Range = (0.0, 1.0)  # above 0.85 the fields of a frame are offset in time
    compression: Range = (0.0, 0.5)  # strength of block artefacts; below 0.25 none
    # Trouble
    bleeding: Range = (0.0, 0.60)  # radius that blood reaches
    bleeding_time: Range = (6.0, 30.0)  # time it takes to spread
    smoke: Range = (0.0, 0.55)  # densest smoke, 0…1
    droplets: Range = (0.0, 5.4)  # drops on the lens; rounded
    out_every: Range = (9.0, 150.0)  # mean time between the camera's trips outside
    out_time: Range = (2.5, 5.0)  # how long it is outside, wiped included

    def __post_init__(self) -> None:
        for name, (low, high) in self.items():
            if not low <= high:
                raise SceneError(f"range {name!r} is ({low}, {high}): the low end comes first")

    def items(self) -> list[tuple[str, Range]]:
        """List the ranges by name."""
        return [(f.name, getattr(self, f.name)) for f in dataclasses.fields(self)]

    def with_(self, overrides: Mapping[str, float | Range]) -> SceneRanges:
        """Replace some ranges; a number fixes the value."""
        known = [name for name, _ in self.items()]
        changed: dict[str, Range] = {}
        for name, value in overrides.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
                raise SceneError(f"a scene has no parameter {name!r}{hint}")
            if isinstance(value, (int, float)):
                changed[name] = (float(value), float(value))
            else:
                low, high = value
                changed[name] = (float(low), float(high))
        return dataclasses.replace(self, **changed)

    def draw(self, seed: int) -> dict[str, float]:
        """Draw one value from every range."""
        return {
            name: uniform_one(seed, "range." + name, low=low, high=high)
            for name, (low, high) in self.items()
        }
