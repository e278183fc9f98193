"""Signed distance fields of instrument parts, baked once into an atlas of small maps.

Local frame of a part: x points to the instrument's tip, y to its left in the picture's sense
(downwards), one unit is the shaft's radius. A part is drawn on a fixed canvas; a frame samples the
atlas at the positions its own affine map gives. The same distance decides colour and mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

X_MIN, X_MAX = -4.0, 14.0  # canvas, in shaft radii
Y_MIN, Y_MAX = -4.5, 4.5
TEXELS = 20  # per shaft radius
WIDTH = int((X_MAX - X_MIN) * TEXELS)
HEIGHT = int((Y_MAX - Y_MIN) * TEXELS)
CHANNELS = 6  # distance, slope x, slope y, tone, metal, tint

Point = tuple[float, float]


class Relief:
    """A canvas on which primitives are joined: nearest distance, highest surface, its material.

    `metal` is 1 for steel and 0 for plastic; `tint` is 0 for the part's own colour and 1 for the
    instrument's accent colour; `tone` multiplies brightness.
    """

    def __init__(self) -> None:
        self.x = (X_MIN + (torch.arange(WIDTH) + 0.5) / TEXELS)[None, :].expand(HEIGHT, WIDTH)
        self.y = (Y_MIN + (torch.arange(HEIGHT) + 0.5) / TEXELS)[:, None].expand(HEIGHT, WIDTH)
        self.distance = torch.full((HEIGHT, WIDTH), 20.0)
        self.height = torch.full((HEIGHT, WIDTH), -20.0)
        self.tone = torch.ones(HEIGHT, WIDTH)
        self.metal = torch.ones(HEIGHT, WIDTH)
        self.tint = torch.zeros(HEIGHT, WIDTH)

    def add(
        self,
        distance: torch.Tensor,
        *,
        rounding: float = 0.4,
        lift: float = 0.0,
        tone: float = 1.0,
        metal: float = 1.0,
        tint: float = 0.0,
    ) -> Relief:
        """Join a shape, its edge rounded over `rounding` radii and its surface raised by `lift`."""
        depth = (-distance / rounding).clamp(0.0, 1.0)
        height = lift + rounding * torch.sqrt(depth * (2.0 - depth) + 1e-5)
        height = torch.where(distance < 0, height, distance * -4.0 + lift)
        wins = height > self.height
        self.height = torch.where(wins, height, self.height)
        self.tone = torch.where(wins, torch.full_like(self.tone, tone), self.tone)
        self.metal = torch.where(wins, torch.full_like(self.metal, metal), self.metal)
        self.tint = torch.where(wins, torch.full_like(self.tint, tint), self.tint)
        self.distance = torch.minimum(self.distance, distance)
        return self

    def cut(self, distance: torch.Tensor) -> Relief:
        """Take a shape away: a slot or a window through which the tissue is seen."""
        self.distance = torch.maximum(self.distance, -distance)
        edge = (distance / 0.25).clamp(0.0, 1.0)
        self.height = self.height - 0.25 * (1.0 - edge) ** 2
        return self

    def engrave(self, distance: torch.Tensor, depth: float = 0.15, tone: float = 0.55) -> Relief:
        """Press a shape into the surface without opening it."""
        inside = (0.5 - distance * 10.0).clamp(0.0, 1.0)
        self.height = self.height - depth * inside
        self.tone = self.tone * (1.0 - (1.0 - tone) * inside)
        return self

    def teeth(self, start: float, stop: float, pitch: float, reach: float) -> Relief:
        """Engrave cross grooves along the inner edge (y = 0) between two places on x."""
        wave = 0.5 + 0.5 * torch.cos(self.x * (6.2832 / pitch))
        inside = (self.x > start) & (self.x < stop) & (self.y.abs() < reach)
        groove = torch.where(inside, wave, torch.zeros_like(wave))
        self.height = self.height - 0.10 * groove
        self.tone = self.tone * (1.0 - 0.45 * groove)
        # The silhouette shows the teeth too.
        self.distance = self.distance + 0.10 * groove
        return self

    def bake(self) -> torch.Tensor:
        """Return float32 [CHANNELS, HEIGHT, WIDTH]."""
        h = self.height.clamp_min(-0.6)
        h = torch.nn.functional.avg_pool2d(
            torch.nn.functional.pad(h[None, None], (1, 1, 1, 1), mode="replicate"), 3, stride=1
        )[0, 0]
        padded = torch.nn.functional.pad(h[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
        slope_x = (padded[1:-1, 2:] - padded[1:-1, :-2]) * (TEXELS / 2.0)
        slope_y = (padded[2:, 1:-1] - padded[:-2, 1:-1]) * (TEXELS / 2.0)
        bound = torch.sqrt(1.0 + 0.20 * (slope_x**2 + slope_y**2))
        return torch.stack(
            (self.distance, slope_x / bound, slope_y / bound, self.tone, self.metal, self.tint)
        )

    # Distances, in shaft radii, negative inside.

    def rod(self, a: Point, b: Point, start: float, end: float | None = None) -> torch.Tensor:
        """Measure to a round-ended rod from a to b whose radius goes from `start` to `end`."""
        end = start if end is None else end
        bx, by = b[0] - a[0], b[1] - a[1]
        px, py = self.x - a[0], self.y - a[1]
        along = ((px * bx + py * by) / (bx * bx + by * by)).clamp(0.0, 1.0)
        radius = start + (end - start) * along
        return torch.sqrt((px - along * bx) ** 2 + (py - along * by) ** 2 + 1e-8) - radius

    def path(self, points: Sequence[Point], start: float, end: float | None = None) -> torch.Tensor:
        """Measure to a chain of rods through the points, thickness going from start to end."""
        end = start if end is None else end
        steps = len(points) - 1
        best: torch.Tensor | None = None
        for i in range(steps):
            r0 = start + (end - start) * i / steps
            r1 = start + (end - start) * (i + 1) / steps
            rod = self.rod(points[i], points[i + 1], r0, r1)
            best = rod if best is None else torch.minimum(best, rod)
        assert best is not None
        return best

    def disc(self, x: float, y: float, radius: float) -> torch.Tensor:
        """Measure to a disc."""
        return torch.sqrt((self.x - x) ** 2 + (self.y - y) ** 2 + 1e-8) - radius

    def box(self, x0: float, x1: float, y0: float, y1: float, corner: float = 0.1) -> torch.Tensor:
        """Measure to an upright box with rounded corners."""
        dx = (self.x - (x0 + x1) / 2).abs() - ((x1 - x0) / 2 - corner)
        dy = (self.y - (y0 + y1) / 2).abs() - ((y1 - y0) / 2 - corner)
        outside = torch.sqrt(dx.clamp_min(0) ** 2 + dy.clamp_min(0) ** 2 + 1e-8)
        return outside + torch.maximum(dx, dy).clamp_max(0.0) - corner

    def polygon(self, points: Sequence[Point], corner: float = 0.08) -> torch.Tensor:
        """Measure to a closed polygon, grown by `corner` so that its corners are round."""
        best = torch.full_like(self.x, 1e9)
        inside = torch.zeros_like(self.x, dtype=torch.bool)
        for (ax, ay), (bx, by) in zip(points, [*points[1:], points[0]], strict=True):
            ex, ey = bx - ax, by - ay
            px, py = self.x - ax, self.y - ay
            along = ((px * ex + py * ey) / max(ex * ex + ey * ey, 1e-9)).clamp(0.0, 1.0)
            best = torch.minimum(best, (px - along * ex) ** 2 + (py - along * ey) ** 2)
            crosses = (py >= 0) != (self.y - by >= 0)
            if ey:
                inside ^= crosses & (px < ex * (self.y - ay) / ey)
        distance = torch.sqrt(best + 1e-8)
        return torch.where(inside, -distance, distance) - corner


def bend(points: Sequence[Point], amount: float) -> list[Point]:
    """Bend points along a parabola: y grows by amount × (x / 10)²."""
    return [(x, y + amount * (x / 10.0) ** 2) for x, y in points]


def smooth(curve: Callable[[float], Point], steps: int) -> list[Point]:
    """Sample a curve over [0, 1] at steps + 1 points."""
    return [curve(i / steps) for i in range(steps + 1)]
