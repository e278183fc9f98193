"""From scenes and frame numbers to pictures and masks: one batch, any device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from sam2s_model.allocator import keep_freed_memory
from sam2s_model.synth import effects
from sam2s_model.synth.errors import SceneError
from sam2s_model.synth.instruments import atlas
from sam2s_model.synth.shading import Batch, canvas, shade_tissue, soft_fields
from sam2s_model.synth.state import FrameState, pad
from sam2s_model.synth.tiles import TILE, draw_tiles

if TYPE_CHECKING:
    from sam2s_model.synth.scene import SurgicalScene


class Frames(NamedTuple):
    """A rendered batch of B frames, on the device it was rendered on."""

    images: torch.Tensor  # uint8 [B, H, W, 3] RGB
    masks: torch.Tensor  # uint8 [B, H, W] instance ids of each frame's scene, 0 background
    areas: torch.Tensor  # int64 [B, ids] pixels in view, seen or hidden by something nearer
    visible: torch.Tensor  # int64 [B, ids] pixels seen


@torch.no_grad()
def render_batch(
    shots: Sequence[tuple[SurgicalScene, int]], device: torch.device | str = "cpu"
) -> Frames:
    """Render (scene, frame number) pairs in one batch; all scenes must have the same size.

    Frames of one scene that stand next to each other share its tissue map in one pass.
    """
    if not shots:
        raise SceneError("a batch needs at least one (scene, frame number)")
    sizes = {(scene.width, scene.height) for scene, _ in shots}
    if len(sizes) > 1:
        raise SceneError(f"scenes of one batch must have the same size; got {sorted(sizes)}")
    place = torch.device(device)
    if place.type == "cpu":
        keep_freed_memory()
    groups = _group(shots)
    width, height = shots[0][0].width, shots[0][0].height
    states = [scene.state(numbers) for scene, numbers in groups]
    return _render([scene for scene, _ in groups], states, width, height, place)


def _group(
    shots: Sequence[tuple[SurgicalScene, int]],
) -> list[tuple[SurgicalScene, np.ndarray[tuple[int], np.dtype[np.int64]]]]:
    groups: list[tuple[SurgicalScene, list[int]]] = []
    for scene, number in shots:
        if groups and groups[-1][0] is scene:
            groups[-1][1].append(number)
        else:
            groups.append((scene, [number]))
    return [(scene, np.asarray(numbers, np.int64)) for scene, numbers in groups]


def _render(
    scenes: Sequence[SurgicalScene],
    states: Sequence[FrameState],
    width: int,
    height: int,
    device: torch.device,
) -> Frames:
    scalars = np.concatenate([state.scalars for state in states])
    view = np.concatenate([state.view for state in states])
    arrays = (scalars, view, *(pad(states, f) for f in ("draws", "pushes", "shadows", "droplets")))
    batch = Batch(*(torch.from_numpy(a).to(device, non_blocking=True) for a in arrays))
    rows, columns = -(-height // TILE) * TILE, -(-width // TILE) * TILE
    pixels = canvas(width, height, rows, columns, device)
    count = len(scalars)
    image = torch.empty(count, 3, rows, columns, device=device)
    labels = torch.empty(count, rows, columns, dtype=torch.uint8, device=device)
    mirrored = torch.empty(count, 3, device=device)
    start = 0
    for scene, state in zip(scenes, states, strict=True):
        part = slice(start, start + len(state.scalars))
        start = part.stop
        tissue = scene.tissue(device)
        sub = batch.take(part)
        soft = soft_fields(sub, width, height, tissue)
        picture, organs = shade_tissue(sub, soft, tissue, pixels, width, height)
        image[part] = picture
        labels[part] = scene.organ_ids(device)[organs.long()] if scene.organs else 0
        mirrored[part] = tissue.mean_colour
    ids = 1 + max(max(scene.classes, default=0) for scene in scenes)
    tissue_area = _count(labels[:, :height, :width], ids)
    layers = draw_tiles(image, labels, batch, pixels, atlas(device), mirrored, ids)
    small = effects.small_copy(image, width, height)
    effects.defocus(image, small, batch, width, height)
    effects.add_smoke(image, small, batch, width, height)
    effects.add_droplets(image, small, batch, width, height)
    effects.leave_body(image, labels, batch, pixels, width, height)
    effects.vignette(image, labels, batch, pixels)
    picture = effects.develop(image, small, batch)
    effects.blur_motion(picture, batch, pixels)
    effects.interlace(picture, labels, batch, pixels)
    effects.add_noise(picture, batch)
    effects.compress(picture, batch)
    shown = labels[:, :height, :width].contiguous()
    eight = picture[:, :, :height, :width].clamp_(0.0, 1.0).mul_(255.0).add_(0.5).to(torch.uint8)
    return Frames(
        eight.permute(0, 2, 3, 1).contiguous(),
        shown,
        layers.own_area + tissue_area,
        _count(shown, ids),
    )


def _count(labels: torch.Tensor, ids: int) -> torch.Tensor:
    """Count the pixels of each id in each frame: int64 [B, ids]."""
    if len(labels) <= 4:
        return torch.stack([torch.bincount(one.reshape(-1), minlength=ids) for one in labels])
    count = len(labels)
    frame = torch.arange(count, device=labels.device, dtype=torch.int32)[:, None, None] * ids
    return torch.bincount((labels + frame).view(-1), minlength=count * ids).view(count, ids)
