"""The tissue under the endoscope's light, per pixel, for a batch of frames of one scene."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from sam2s_model.synth.anatomy import EXTENT
from sam2s_model.synth.state import COLUMN
from sam2s_model.synth.tissue import TissueMap

ROWS = 72  # rows of the coarse grid on which soft fields are computed, whatever the picture's size
MIRROR = 0.34  # slope of the surface that mirrors the light to the lens, per half picture height
SHARP, BROAD = 0.75, 0.16  # weights of the wet glint and of the sheen around it
BLOOD = (0.25, 0.006, 0.008)  # linear


class Canvas(NamedTuple):
    """Pixel centres in image coordinates: x [W], y [H]."""

    x: torch.Tensor
    y: torch.Tensor

    @property
    def pixel(self) -> float:
        """Width of a pixel in image units."""
        return float(self.y[1] - self.y[0])


def canvas(width: int, height: int, rows: int, columns: int, device: torch.device) -> Canvas:
    """Place rows × columns pixel centres for a picture of width × height (the rest is padding)."""
    # Computed in float64: the same numbers on every device.
    x = (2.0 * (torch.arange(columns, dtype=torch.float64) + 0.5) - width) / height
    y = (2.0 * (torch.arange(rows, dtype=torch.float64) + 0.5) - height) / height
    return Canvas(x.float().to(device), y.float().to(device))


class Batch(NamedTuple):
    """Tensors of FrameState for B frames."""

    scalars: torch.Tensor  # [B, NAMES]
    view: torch.Tensor  # [B, 2, 3]
    draws: torch.Tensor  # [B, D, COLUMNS]
    pushes: torch.Tensor  # [B, T, 6]
    shadows: torch.Tensor  # [B, S, 7]
    droplets: torch.Tensor  # [B, K, 4]

    def scalar(self, name: str, dims: int = 3) -> torch.Tensor:
        """Take one scalar a frame as [B, 1, 1, …] with `dims` dimensions."""
        column = self.scalars[:, COLUMN[name]]
        return column.reshape(-1, *([1] * (dims - 1)))

    def take(self, index: slice) -> Batch:
        """Take some frames."""
        return Batch(*(field[index] for field in self))


class Soft(NamedTuple):
    """Fields that vary slowly, on the coarse grid [B, h, w]."""

    shift_x: torch.Tensor  # world units, added to where the tissue map is read
    shift_y: torch.Tensor
    shade: torch.Tensor  # light that arrives


def soft_fields(batch: Batch, width: int, height: int, tissue: TissueMap) -> Soft:
    """Compute deformation, parallax, light falloff and shadows on the coarse grid."""
    columns = max(8, round(ROWS * width / height))
    device = batch.scalars.device
    # Cell centres, so that bilinear enlargement with align_corners=False meets the pixels.
    grid = canvas(columns, ROWS, ROWS, columns, device)
    stretch = (width / height) / (columns / ROWS)
    x = (grid.x * stretch)[None, None, :]
    y = grid.y[None, :, None]
    shift_x, shift_y = _tilt(batch, x, y)
    world_x, world_y = _to_world(batch, x, y)
    phase_1, phase_2 = batch.scalar("sway_1"), batch.scalar("sway_2")
    sway = batch.scalar("sway")
    shift_x = shift_x + sway * torch.sin(phase_1 + 2.1 * world_y)
    shift_y = shift_y + sway * torch.sin(phase_2 + 1.7 * world_x)
    radius2 = x * x + y * y
    shade = batch.scalar("light") / (1.0 + 1.9 * batch.scalar("falloff") * radius2)
    for i in range(batch.pushes.shape[1]):
        px, py, dx, dy, dent, wide = (batch.pushes[:, i, k, None, None] for k in range(6))
        near = torch.exp(((x - px) ** 2 + (y - py) ** 2) / (-wide * wide + 1e-9))
        near = torch.where(wide > 0, near, torch.zeros_like(near))
        shift_x = shift_x - dx * near
        shift_y = shift_y - dy * near
        shade = shade * (1.0 - 0.35 * dent * near * near)
    light_x, light_y = batch.scalar("light_x"), batch.scalar("light_y")
    dark = torch.ones_like(shade)
    for i in range(batch.shadows.shape[1]):
        ax, ay, bx, by, radius, soft, strength = (
            batch.shadows[:, i, k, None, None] for k in range(7)
        )
        # The shadow falls away from the light, and further where the tool is high: near its end.
        px, py = x - ax + 1.1 * light_x, y - ay + 1.1 * light_y
        ex, ey = bx - ax, by - ay
        along = ((px * ex + py * ey) / (ex * ex + ey * ey + 1e-9)).clamp(0.0, 1.0)
        gap = torch.sqrt((px - along * ex) ** 2 + (py - along * ey) ** 2 + 1e-9) - radius
        inside = (0.5 - 0.5 * gap / (soft + 1e-6)).clamp(0.0, 1.0)
        dark = dark * (1.0 - strength * inside * inside * (3.0 - 2.0 * inside))
    shade = shade * (1.0 - batch.scalar("shadow") * (1.0 - dark))
    shift_x, shift_y = _parallax(
        batch, world_x + shift_x, world_y + shift_y, shift_x, shift_y, x, y, tissue
    )
    return Soft(shift_x, shift_y, shade)


def _to_world(batch: Batch, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    v = batch.view[:, :, :, None, None]
    return v[:, 0, 0] * x + v[:, 0, 1] * y + v[:, 0, 2], v[:, 1, 0] * x + v[:, 1, 1] * y + v[
        :, 1, 2
    ]


def _tilt(batch: Batch, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Perspective of a tissue plane that leans away: what the affine view leaves out."""
    lean = batch.scalar("tilt_x") * x - batch.scalar("tilt_y") * y
    v = batch.view[:, :, :, None, None]
    out_x = (v[:, 0, 0] * x + v[:, 0, 1] * y) * lean
    out_y = (v[:, 1, 0] * x + v[:, 1, 1] * y) * lean
    return out_x, out_y


def _parallax(
    batch: Batch,
    world_x: torch.Tensor,
    world_y: torch.Tensor,
    shift_x: torch.Tensor,
    shift_y: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
    tissue: TissueMap,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Move high tissue outwards in the picture, as it is nearer to the lens."""
    grid = torch.stack((world_x, world_y), dim=-1) / EXTENT
    relief = tissue.height[None, None].expand(len(grid), 1, -1, -1)
    high = F.grid_sample(relief, grid, padding_mode="reflection", align_corners=True)[:, 0]
    v = batch.view[:, :, :, None, None]
    factor = -0.45 * high
    return (
        shift_x + factor * (v[:, 0, 0] * x + v[:, 0, 1] * y),
        shift_y + factor * (v[:, 1, 0] * x + v[:, 1, 1] * y),
    )


def enlarge(fields: torch.Tensor, width: int, height: int, rows: int, columns: int) -> torch.Tensor:
    """Bring coarse fields [B, C, h, w] to [B, C, rows, columns] of a width × height picture."""
    out = F.interpolate(fields, size=(height, width), mode="bilinear", align_corners=False)
    if (rows, columns) != (height, width):
        out = F.pad(out, (0, columns - width, 0, rows - height), mode="replicate")
    return out


def shade_tissue(
    batch: Batch, soft: Soft, tissue: TissueMap, pixels: Canvas, width: int, height: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Shade the tissue: linear RGB [B, 3, H, W] and organ numbers uint8 [B, H, W]."""
    rows, columns = len(pixels.y), len(pixels.x)
    count = len(batch.scalars)
    fields = enlarge(
        torch.stack((soft.shift_x, soft.shift_y, soft.shade), dim=1), width, height, rows, columns
    )
    x, y = pixels.x[None, None, :], pixels.y[None, :, None]
    v = batch.view[:, :, :, None, None]
    grid = torch.empty(count, rows, columns, 2, device=fields.device)
    for axis in range(2):
        plane = grid[..., axis]
        torch.add(fields[:, axis], v[:, axis, 0] * x, out=plane)
        plane.add_(v[:, axis, 1] * y + v[:, axis, 2]).mul_(1.0 / EXTENT)
    # Mirrored at the map's border: rays that leave it (wide pictures, far pans) see tissue still.
    sampled = F.grid_sample(
        tissue.channels[None].expand(count, -1, -1, -1),
        grid,
        mode="bilinear",
        padding_mode="reflection",
        align_corners=True,
    )
    labels = _labels(tissue.labels, grid)
    colour, slopes = sampled[:, :3], sampled[:, 3:5]
    gloss, arrival = sampled[:, 5], sampled[:, 6]
    # The surface slope that would mirror the light, turned into the world's directions.
    zoom = torch.sqrt(v[:, 0, 0] ** 2 + v[:, 1, 0] ** 2)
    for axis in range(2):
        ax, bx = v[:, axis, 0] / zoom, v[:, axis, 1] / zoom
        shift = ax * batch.scalar("light_x") + bx * batch.scalar("light_y")
        slopes[:, axis].sub_(MIRROR * ax * x).sub_(MIRROR * bx * y + 2.0 * shift)
    steep = slopes[:, 0].square().addcmul_(slopes[:, 1], slopes[:, 1])
    if bool((batch.scalar("blood") > 0).any()):
        cover = (batch.scalar("blood") - arrival).mul_(8.0).clamp_(0.0, 1.0)
        cover *= batch.scalar("blood") > 0
        red = torch.tensor(BLOOD, device=cover.device)[None, :, None, None]
        # Thin blood lets the tissue through; at the rim it is thinnest.
        colour = torch.lerp(colour, red * (0.6 + 0.6 * colour), (0.93 * cover)[:, None])
        gloss = gloss + 0.55 * cover
        # A film that fills the hollows: the relief shows through it only faintly.
        steep = steep * (1.0 - 0.60 * cover)
    shade = fields[:, 2]
    diffuse = (1.0 + 0.85 * steep).reciprocal_().mul_(shade)
    glint = torch.exp(steep.mul_(-7.0))
    sharp = glint.square().square_().square_()
    wet = sharp.mul_(SHARP).add_(glint, alpha=BROAD).mul_(gloss).mul_(shade).mul_(shade)
    image = colour.mul(diffuse[:, None]).add_(wet[:, None])
    return image, labels


def _labels(labels: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Read the nearest texel's organ number, exactly where the colours are read."""
    out = F.grid_sample(
        labels[None, None].expand(len(grid), -1, -1, -1),
        grid,
        mode="nearest",
        padding_mode="reflection",
        align_corners=True,
    )
    return out[:, 0].to(torch.uint8)
