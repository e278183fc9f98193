"""Instruments over tissue: sprite draws rasterised by tiles, blended far to near.

A tile is 16 × 16 pixels. Only tiles that a draw may touch are computed, all of them in one pass;
then they are blended in the order of depth. The sign of the distance field is the mask, its value
over a pixel's width is the coverage: picture and mask cannot disagree.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
import torch.nn.functional as F

from sam2s_model.synth import cast, relief
from sam2s_model.synth.shading import MIRROR, Batch, Canvas

TILE = 16


class Layers(NamedTuple):
    """What the tiles gave back."""

    own_area: torch.Tensor  # int64 [B, ids]: pixels in view that belong to each id, hidden or not


def draw_tiles(
    image: torch.Tensor,
    labels: torch.Tensor,
    batch: Batch,
    pixels: Canvas,
    atlas: torch.Tensor,
    mirrored: torch.Tensor,
    ids: int,
) -> Layers:
    """Blend all draws into image [B, 3, H, W] and labels uint8 [B, H, W], in place.

    mirrored: [B, 3] linear colour that steel mirrors. ids: largest identity + 1.
    """
    count, _, rows, columns = image.shape
    own = torch.zeros(count, ids, dtype=torch.int64, device=image.device)
    pairs = _touched(batch.draws, pixels)
    if not len(pairs):
        return Layers(own)
    depth, frame, ty, tx = pairs.unbind(1)
    values = batch.draws[frame, depth]
    rgb, cover, inside = _shade(values, batch, frame, ty, tx, pixels, atlas, mirrored)
    high, wide = rows // TILE, columns // TILE
    slot = (frame * high + ty) * wide + tx
    view = image.view(count, 3, high, TILE, wide, TILE)
    label_view = labels.view(count, high, TILE, wide, TILE)
    colours = view.permute(0, 2, 4, 1, 3, 5).reshape(-1, 3, TILE, TILE)
    marks = label_view.permute(0, 1, 3, 2, 4).reshape(-1, TILE, TILE)
    identity = values[:, cast.IDENTITY].to(torch.uint8)
    counter = frame * ids + identity
    bounds = torch.searchsorted(
        depth, torch.arange(batch.draws.shape[1] + 1, device=depth.device)
    ).tolist()
    for start, stop in itertools.pairwise(bounds):
        if start == stop:
            continue
        at = slot[start:stop]  # every tile at most once within one depth
        under = colours.index_select(0, at)
        colours.index_copy_(0, at, torch.lerp(under, rgb[start:stop], cover[start:stop, None]))
        hit, who = inside[start:stop], identity[start:stop, None, None]
        before = marks.index_select(0, at)
        # Parts of one instrument follow each other, so what it covered already bears its mark.
        fresh = hit & (before != who)
        marks.index_copy_(0, at, torch.where(hit, who, before))
        own.view(-1).index_add_(0, counter[start:stop], fresh.sum(dim=(1, 2)))
    tiled = colours.view(count, high, wide, 3, TILE, TILE)
    view.copy_(tiled.permute(0, 3, 1, 4, 2, 5))
    label_view.copy_(marks.view(count, high, wide, TILE, TILE).permute(0, 1, 3, 2, 4))
    return Layers(own)


def _touched(draws: torch.Tensor, pixels: Canvas) -> torch.Tensor:
    """List (depth, frame, tile row, tile column) of the tiles that each draw may touch."""
    x = pixels.x.view(-1, TILE).mean(dim=1)
    y = pixels.y.view(-1, TILE).mean(dim=1)
    d = draws.transpose(0, 1)[..., None, None]  # [D, B, COLUMNS, 1, 1]
    lx = d[:, :, cast.AX] * x + d[:, :, cast.BX] * y[:, None] + d[:, :, cast.CX]
    ly = d[:, :, cast.AY] * x + d[:, :, cast.BY] * y[:, None] + d[:, :, cast.CY]
    # Half a tile's diagonal and the blur, in the draw's own units (rows of the map are not equal
    # when a part is squeezed, hence two margins).
    reach = 0.75 * TILE * pixels.pixel + d[:, :, cast.BLUR]
    margin_x = reach * torch.hypot(d[:, :, cast.AX], d[:, :, cast.BX])
    margin_y = reach * torch.hypot(d[:, :, cast.AY], d[:, :, cast.BY])
    box = _sprite_boxes(draws.device)[draws.transpose(0, 1)[..., cast.SPRITE].long()]
    box = box[..., None, None]  # [D, B, 4, 1, 1]
    endless = d[:, :, cast.ENDLESS] > 0
    growth = torch.where(endless, 1.0 + d[:, :, cast.TAPER] * (-lx).clamp_min(0.0), 1.0)
    lx = lx - lx.clamp_min(0.0).minimum(d[:, :, cast.STRETCH])
    hit = (lx < box[:, :, 1] + margin_x) & ((lx > box[:, :, 0] - margin_x) | endless)
    hit &= (ly > box[:, :, 2] * growth - margin_y) & (ly < box[:, :, 3] * growth + margin_y)
    hit &= d[:, :, cast.UNIT] > 0
    return hit.nonzero()


_BOXES: dict[torch.device, torch.Tensor] = {}


def _sprite_boxes(device: torch.device) -> torch.Tensor:
    """Bound each sprite: x0, x1, y0, y1 in local units, float32 [sprites, 4]."""
    if device not in _BOXES:
        from sam2s_model.synth.instruments import atlas

        distance = atlas(torch.device("cpu"))[0].view(-1, relief.HEIGHT, relief.WIDTH)
        boxes = []
        for d in distance:
            ys, xs = (d < 0).nonzero(as_tuple=True)
            boxes.append(
                (
                    relief.X_MIN + (xs.min().item() - 1) / relief.TEXELS,
                    relief.X_MIN + (xs.max().item() + 2) / relief.TEXELS,
                    relief.Y_MIN + (ys.min().item() - 1) / relief.TEXELS,
                    relief.Y_MIN + (ys.max().item() + 2) / relief.TEXELS,
                )
            )
        _BOXES[device] = torch.tensor(boxes, device=device)
    return _BOXES[device]


def _shade(
    values: torch.Tensor,
    batch: Batch,
    frame: torch.Tensor,
    ty: torch.Tensor,
    tx: torch.Tensor,
    pixels: Canvas,
    atlas: torch.Tensor,
    mirrored: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Shade P tiles: linear RGB [P, 3, 16, 16], coverage [P, 16, 16], inside bool [P, 16, 16]."""
    v = values[:, :, None, None]
    x = pixels.x.view(-1, TILE)[tx][:, None, :]
    y = pixels.y.view(-1, TILE)[ty][:, :, None]
    lx = (v[:, cast.AX] * x).add(v[:, cast.BX] * y + v[:, cast.CX])
    ly = (v[:, cast.AY] * x).add(v[:, cast.BY] * y + v[:, cast.CY])
    endless, taper = v[:, cast.ENDLESS], v[:, cast.TAPER]
    growth = 1.0 + taper * (-lx).clamp_min_(0.0)
    ly = ly / growth
    lx = lx - lx.clamp_min(0.0).minimum(v[:, cast.STRETCH])
    sampled, beyond = _sample(atlas, lx, ly, v[:, cast.SPRITE], endless)
    distance, gx, gy, tone, metal, tint = sampled.unbind(0)
    distance = (distance + beyond) * (v[:, cast.UNIT] * growth)
    cover = (0.5 - distance / (pixels.pixel + v[:, cast.BLUR])).clamp_(0.0, 1.0)
    unit = v[:, cast.UNIT]
    sx = (gx * v[:, cast.AX] + gy * v[:, cast.AY]).mul_(unit)
    sy = (gx * v[:, cast.BX] + gy * v[:, cast.BY]).mul_(unit)
    s = batch.scalars[frame]
    light = _scalar(s, "light") / (1.0 + 1.3 * _scalar(s, "falloff") * (x * x + y * y))
    light = light * v[:, cast.BRIGHT]
    mx = sx - MIRROR * x - 2.0 * _scalar(s, "light_x")
    my = sy - MIRROR * y - 2.0 * _scalar(s, "light_y")
    steep = mx.mul_(mx).addcmul_(my, my)
    sheen = torch.exp(-4.0 * steep)
    diffuse = (1.0 + 1.1 * steep).reciprocal_()
    metal = torch.maximum(metal, v[:, cast.METAL])
    stain = v[:, cast.STAIN] * _blots(lx, ly, v[:, cast.IDENTITY])
    base = values[:, cast.COLOUR : cast.COLOUR + 3, None, None]
    accent = values[:, cast.ACCENT : cast.ACCENT + 3, None, None]
    colour = torch.lerp(base.expand(-1, -1, TILE, TILE), accent, tint[:, None]) * tone[:, None]
    # Steel: dark where it mirrors the dark, bright where it mirrors the light, red from tissue.
    bright = metal * (0.20 + 0.65 * sheen - 0.55) + (0.85 * diffuse)
    glow = mirrored[frame][:, :, None, None] * (metal * (1.0 - diffuse))[:, None]
    shine = sheen.square().square_() * (0.22 + 0.65 * metal) * (1.0 - 0.6 * stain)
    red = torch.tensor((0.16, 0.008, 0.008), device=colour.device)[None, :, None, None]
    colour = torch.lerp(
        colour * bright.clamp_min_(0.05)[:, None] + 0.55 * glow,
        red * (0.4 + diffuse)[:, None],
        stain[:, None],
    )
    rgb = (colour + shine[:, None]).mul_(light[:, None])
    return rgb, cover, distance < 0


def _scalar(scalars: torch.Tensor, name: str) -> torch.Tensor:
    from sam2s_model.synth.state import COLUMN

    return scalars[:, COLUMN[name], None, None]


def _blots(lx: torch.Tensor, ly: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
    """Blood on the working end: smooth patches in local coordinates, [0, 1]."""
    field = torch.sin(1.1 * lx + 1.9 * identity) + torch.sin(2.3 * ly - 0.7 * lx + identity)
    field = field + 0.6 * torch.sin(3.1 * lx + 2.7 * ly)
    patches = (field - 0.9).clamp_(0.0, 0.6).mul_(1.4)
    return patches * ((lx + 5.0) / 4.0).clamp_(0.0, 1.0)


def _sample(
    atlas: torch.Tensor,
    lx: torch.Tensor,
    ly: torch.Tensor,
    sprite: torch.Tensor,
    endless: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Read the atlas at local coordinates [P, 16, 16]: [CHANNELS, P, 16, 16], distance beyond."""
    half = 0.5 / relief.TEXELS
    cx = lx.clamp(relief.X_MIN + half, relief.X_MAX - half)
    cy = ly.clamp(relief.Y_MIN + half, relief.Y_MAX - half)
    over = lx - cx
    over = torch.where((endless > 0) & (over < 0), torch.zeros_like(over), over)
    beyond = over.abs_() + (ly - cy).abs_()
    column = (cx - relief.X_MIN) * relief.TEXELS  # in texels, 0 at the left edge
    row = (cy - relief.Y_MIN) * relief.TEXELS + sprite * relief.HEIGHT
    tall, wide = atlas.shape[1:]
    grid = torch.stack((column * (2.0 / wide) - 1.0, row * (2.0 / tall) - 1.0), dim=-1)
    flat = grid.view(1, -1, TILE, 2)
    out = F.grid_sample(atlas[None], flat, mode="bilinear", align_corners=False)
    return out.view(atlas.shape[0], *lx.shape), beyond
