"""Between tissue and file: smoke, drops, defocus, the round image, exposure, sensor, compression.

All on linear or display RGB [B, 3, H, W]. What only some frames need is done for those alone. Only
the round image, trips outside and interlaced fields change which pixels show a target, so only
they touch the labels.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F

from sam2s_model.synth.noise import fractal, gaussian_tile
from sam2s_model.synth.shading import ROWS, Batch, Canvas, canvas, enlarge
from sam2s_model.synth.state import COLUMN

SOFT_ROWS = 128  # rows of the small copy that blurs are taken from
SMOKE = (0.62, 0.60, 0.60)  # linear
GAUZE = (0.80, 0.79, 0.76)
LUMA = (0.30, 0.59, 0.11)
NOISE_TILE = 256
GAUZE_FROM, GAUZE_FULL = 0.5, 0.75  # the camera's way out over which the picture turns to gauze
BLOCK = 8  # pixels of a compression block


def small_copy(image: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Shrink to SOFT_ROWS rows (or fewer, for small pictures): [B, 3, h, w]."""
    rows = min(SOFT_ROWS, height)
    columns = max(8, round(rows * width / height))
    return F.interpolate(image[:, :, :height, :width], size=(rows, columns), mode="area")


def _change(image: torch.Tensor, who: torch.Tensor, changed: torch.Tensor) -> None:
    """Put changed frames back; where all have changed, without looking them up."""
    if len(who) == len(image):
        image.copy_(changed)
    else:
        image[who] = changed


def _some(image: torch.Tensor, who: torch.Tensor) -> torch.Tensor:
    """Take some frames; all of them without a copy."""
    return image if len(who) == len(image) else image[who]


def _blur(image: torch.Tensor, radius: int) -> torch.Tensor:
    """Blur by two box filters of the given radius."""
    size = 2 * radius + 1
    # Sums of shifted views: on small pictures several times faster than a pooling layer.
    for _ in range(2):
        padded = F.pad(image, (radius,) * 4, mode="replicate")
        rows, columns = image.shape[2:]
        tall = padded[:, :, :rows].clone()
        for k in range(1, size):
            tall += padded[:, :, k : k + rows]
        image = tall[..., :columns].clone()
        for k in range(1, size):
            image += tall[..., k : k + columns]
        image *= 1.0 / (size * size)
    return image


@functools.lru_cache(maxsize=8)
def _clouds(device: torch.device) -> torch.Tensor:
    """The noise that smoke and gauze drift over: [2, 1, 256, 256] in [0, 1]."""
    cloud = fractal(1, "clouds", 256, 9, 5, device, 0.6).mul(0.45).add(0.5).clamp(0.0, 1.0)
    cloth = fractal(2, "cloth", 256, 22, 4, device, 0.8).mul(0.45).add(0.5).clamp(0.0, 1.0)
    return torch.stack((cloud, cloth))[:, None]


def _drift(
    which: int, grid: Canvas, dx: torch.Tensor, dy: torch.Tensor, scale: float
) -> torch.Tensor:
    """Read a cloud at the canvas moved by dx, dy ([B, 1, 1]); [B, h, w]."""
    x = (grid.x[None, None, :] * scale + dx).expand(-1, len(grid.y), -1)
    y = (grid.y[None, :, None] * scale + dy).expand(-1, -1, len(grid.x))
    clouds = _clouds(grid.x.device)[which][None].expand(len(x), -1, -1, -1)
    return F.grid_sample(
        clouds, torch.stack((x, y), dim=-1), padding_mode="reflection", align_corners=True
    )[:, 0]


def add_smoke(
    image: torch.Tensor, small: torch.Tensor, batch: Batch, width: int, height: int
) -> None:
    """Veil the frames that have smoke, in place."""
    who = (batch.scalar("smoke", 1) > 0.02).nonzero()[:, 0]
    if not len(who):
        return
    rows, columns = image.shape[2:]
    wide = max(8, round(ROWS * width / height))
    grid = canvas(wide, ROWS, ROWS, wide, image.device)
    part = Batch(*(field[who] for field in batch))
    x, y = part.scalar("smoke_x"), part.scalar("smoke_y")
    veil = _drift(0, grid, x, y, 0.35) * 0.65 + _drift(0, grid, -0.6 * x, 1.4 * y + 0.4, 0.8) * 0.5
    radius = torch.hypot(grid.x[None, None, :], grid.y[None, :, None])
    density = (part.scalar("smoke") * (0.35 + 1.3 * veil)).clamp_(0.0, 0.93)
    # Smoke is lit by the scope: brightest in the middle.
    lit = part.scalar("light") * (0.55 + 0.35 * veil) / (1.0 + 0.5 * radius * radius)
    fields = enlarge(torch.stack((density, lit), dim=1), width, height, rows, columns)
    tint = torch.tensor(SMOKE, device=image.device)[None, :, None, None]
    ambient = small[who].mean(dim=(2, 3), keepdim=True)
    colour = (0.7 * tint + 0.45 * ambient) * fields[:, 1:2]
    _change(image, who, torch.lerp(_some(image, who), colour, fields[:, 0:1]))


def add_droplets(
    image: torch.Tensor, small: torch.Tensor, batch: Batch, width: int, height: int
) -> None:
    """Blur what lies behind drops on the lens and turn it over, as a small lens does."""
    drops = batch.droplets
    who = (drops[:, :, 3] > 0.01).any(dim=1).nonzero()[:, 0]
    if not len(who):
        return
    rows, columns = image.shape[2:]
    tall, wide = small.shape[2:]
    grid = canvas(wide, tall, tall, wide, image.device)
    x, y = grid.x[None, None, :], grid.y[None, :, None]
    look_x = x.expand(len(who), tall, wide).clone()
    look_y = y.expand(len(who), tall, wide).clone()
    weight = torch.zeros_like(look_x)
    rim = torch.zeros_like(look_x)
    for i in range(drops.shape[1]):
        cx, cy, radius, strength = (drops[who, i, k, None, None] for k in range(4))
        dx, dy = x - cx, (y - cy) * 0.85
        far = torch.sqrt(dx * dx + dy * dy + 1e-8) / (radius + 1e-6)
        inside = ((1.15 - far) / 0.45).clamp(0.0, 1.0) * strength * (radius > 0)
        look_x = look_x - 1.1 * dx * inside
        look_y = look_y - 1.1 * dy * inside
        weight = torch.maximum(weight, inside)
        rim = rim + strength * (1.0 - ((far - 0.95) / 0.25) ** 2).clamp(0.0, 1.0) * (radius > 0)
    aspect = width / height
    seen = F.grid_sample(
        _blur(small[who], 2),
        torch.stack((look_x / aspect, look_y), dim=-1),
        padding_mode="reflection",
        align_corners=False,
    )
    seen = seen * (1.05 + 0.10 * rim[:, None]) + 0.02 * rim[:, None]
    fields = enlarge(torch.cat((seen, weight[:, None]), dim=1), width, height, rows, columns)
    _change(image, who, torch.lerp(_some(image, who), fields[:, :3], 0.9 * fields[:, 3:4]))


def defocus(
    image: torch.Tensor, small: torch.Tensor, batch: Batch, width: int, height: int
) -> None:
    """Blend towards blurred copies where the frame is out of focus, in place."""
    amount = batch.scalar("defocus", 4)
    who = (amount[:, 0, 0, 0] > 0.03).nonzero()[:, 0]
    if not len(who):
        return
    rows, columns = image.shape[2:]
    amount = amount[who]
    first = enlarge(_blur(small[who], 1), width, height, rows, columns)
    _change(image, who, torch.lerp(_some(image, who), first, (amount * 2.0).clamp(0.0, 1.0)))
    strong = (amount[:, 0, 0, 0] > 0.5).nonzero()[:, 0]
    if len(strong):
        second = enlarge(_blur(small[who[strong]], 4), width, height, rows, columns)
        mix = (amount[strong] * 2.0 - 1.0).clamp(0.0, 1.0)
        image[who[strong]] = torch.lerp(image[who[strong]], second, mix)


def blur_motion(image: torch.Tensor, batch: Batch, pixels: Canvas) -> None:
    """Smear frames along the camera's move while the shutter was open, in place."""
    moves = batch.scalars[:, [_column("blur_x"), _column("blur_y")]].tolist()
    for i, (dx, dy) in enumerate(moves):
        px, py = dx / pixels.pixel, dy / pixels.pixel
        length = math.hypot(px, py)
        if length < 1.5:
            continue
        taps = min(7, max(3, round(length / 2.0)))
        steps = [k / (taps - 1) - 0.5 for k in range(taps)]
        image[i] = _smeared(image[i], [(round(s * px), round(s * py)) for s in steps])


def _smeared(frame: torch.Tensor, shifts: list[tuple[int, int]]) -> torch.Tensor:
    """Average copies of a frame [3, H, W] shifted by whole pixels, its border repeated."""
    rows, columns = frame.shape[-2:]
    wide = max(abs(dx) for dx, _ in shifts)
    tall = max(abs(dy) for _, dy in shifts)
    padded = F.pad(frame[None], (wide, wide, tall, tall), mode="replicate")[0]
    total = torch.zeros_like(frame)
    for dx, dy in shifts:
        y, x = tall - dy, wide - dx
        total += padded[:, y : y + rows, x : x + columns]
    return total / len(shifts)


def _moved(frame: torch.Tensor, dx: int, dy: int) -> torch.Tensor:
    """Shift a frame [.., H, W] by whole pixels, repeating its border."""
    rows, columns = frame.shape[-2:]
    y = (torch.arange(rows, device=frame.device) - dy).clamp_(0, rows - 1)
    x = (torch.arange(columns, device=frame.device) - dx).clamp_(0, columns - 1)
    return frame[..., y, :][..., x]


def interlace(image: torch.Tensor, labels: torch.Tensor, batch: Batch, pixels: Canvas) -> None:
    """Show every other row as it was half a frame before, picture and labels alike, in place."""
    moves = batch.scalars[:, [_column("field_x"), _column("field_y")]].tolist()
    for i, (dx, dy) in enumerate(moves):
        px, py = round(dx / pixels.pixel), round(dy / pixels.pixel)
        if not px and not py:
            continue
        image[i, :, 1::2] = _moved(image[i], px, py)[:, 1::2].clone()
        labels[i, 1::2] = _moved(labels[i], px, py)[1::2].clone()


def leave_body(
    image: torch.Tensor, labels: torch.Tensor, batch: Batch, pixels: Canvas, width: int, height: int
) -> None:
    """Outside the body the camera is wiped on gauze: nothing of the scene is visible."""
    outside = batch.scalar("outside", 1)
    who = (outside > GAUZE_FROM).nonzero()[:, 0]
    if not len(who):
        return
    rows, columns = image.shape[2:]
    wide = max(8, round(ROWS * width / height))
    grid = canvas(wide, ROWS, ROWS, wide, image.device)
    x = batch.scalar("gauze_x")[who]
    y = batch.scalar("gauze_y")[who]
    cloth = 0.45 * _drift(1, grid, x, y, 0.5) + 0.75 * _drift(0, grid, x, 0.5 * x + y, 0.5)
    cloth = enlarge(cloth[:, None], width, height, rows, columns)
    weave = (
        0.5
        + 0.25 * torch.sin(90.0 * (pixels.x[None, None, None, :] + x[:, None]))
        + (0.25 * torch.sin(90.0 * (pixels.y[None, None, :, None] + y[:, None])))
    )
    tint = torch.tensor(GAUZE, device=image.device)[None, :, None, None]
    cloth = tint * (0.35 + 0.75 * cloth) * (0.90 + 0.10 * weave)
    mix = ((batch.scalar("outside", 4)[who] - GAUZE_FROM) / (GAUZE_FULL - GAUZE_FROM)).clamp(0, 1)
    image[who] = torch.lerp(image[who] * (1.0 - mix), cloth, mix)
    labels[who] = 0


def vignette(image: torch.Tensor, labels: torch.Tensor, batch: Batch, pixels: Canvas) -> None:
    """Black out what lies outside the round image, in place."""
    corner = math.hypot(float(pixels.x.abs().max()), float(pixels.y.abs().max()))
    edge = batch.scalar("vignette", 1)
    who = (edge < corner + 0.15).nonzero()[:, 0]
    if not len(who):
        return
    x = pixels.x[None, None, :] - batch.scalar("vignette_x")[who]
    y = pixels.y[None, :, None] - batch.scalar("vignette_y")[who]
    gap = batch.scalar("vignette")[who] - torch.sqrt(x * x + y * y)
    # The edge is a lens's: soft over a fiftieth of the picture, and the mask ends in its middle.
    _change(image, who, _some(image, who) * (0.5 + gap / 0.03).clamp_(0.0, 1.0)[:, None])
    labels[who] = torch.where(gap < 0, torch.zeros_like(labels[who]), labels[who])


def develop(image: torch.Tensor, small: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Expose, balance and bend to display RGB in [0, 1]: [B, 3, H, W]."""
    mean = small.mean(dim=(1, 2, 3))
    auto = batch.scalar("auto_exposure", 1)
    gain = 1.55 * (0.16 / mean.clamp_min(0.02)).clamp(0.4, 2.6) ** auto
    balance = torch.stack(
        (batch.scalar("white_red", 1), torch.ones_like(mean), batch.scalar("white_blue", 1)), dim=1
    )
    luma = torch.tensor(LUMA, device=image.device)[None, :, None, None]
    out = image * (balance * gain[:, None])[:, :, None, None]
    grey = (out * luma).sum(dim=1, keepdim=True)
    out = torch.lerp(grey, out, batch.scalar("saturation", 4))
    out.clamp_(min=0.0)
    # A shoulder keeps highlights from clipping hard; then the display's square-root curve.
    out.div_(out.mul(0.30).add_(1.0)).mul_(1.12)
    return out.clamp_(max=1.0).sqrt_()


@functools.lru_cache(maxsize=8)
def _noise(rows: int, columns: int, device: torch.device) -> torch.Tensor:
    """Sensor noise [3, ≥ rows + tile, ≥ columns + tile], periodic; luma and chroma mixed."""
    tile = gaussian_tile(3, "sensor", 4, NOISE_TILE)
    tile = (0.75 * tile[:3] + 0.66 * tile[3:]).to(device)
    high, wide = rows // NOISE_TILE + 2, columns // NOISE_TILE + 2
    return tile.repeat(1, high, wide)


def add_noise(image: torch.Tensor, batch: Batch) -> None:
    """Add sensor noise, different in every frame, in place."""
    rows, columns = image.shape[2:]
    field = _noise(rows, columns, image.device)
    names = [_column("noise"), _column("noise_x"), _column("noise_y")]
    for i, (sigma, x, y) in enumerate(batch.scalars[:, names].tolist()):
        dx, dy = int(x * NOISE_TILE), int(y * NOISE_TILE)
        image[i].add_(field[:, dy : dy + rows, dx : dx + columns], alpha=sigma)


def compress(image: torch.Tensor, batch: Batch) -> None:
    """Quantise 8 × 8 cosine blocks as a hard-pressed encoder does, in place."""
    strength = batch.scalar("compression", 1)
    who = (strength > 0).nonzero()[:, 0]
    if not len(who):
        return
    forward, weight = _cosines(image.device)
    rows, columns = image.shape[2:]
    high, wide = rows // BLOCK, columns // BLOCK
    blocks = _some(image, who).view(len(who) * 3, high, BLOCK, wide, BLOCK)
    flat = blocks.permute(2, 4, 0, 1, 3).reshape(BLOCK * BLOCK, len(who) * 3, high * wide)
    step = weight[:, None, None] * strength[who].repeat_interleave(3)[None, :, None]
    spectrum = (forward @ flat.flatten(1)).view_as(flat)
    spectrum = spectrum.div_(step).round_().mul_(step)
    flat = (forward.T @ spectrum.flatten(1)).view(BLOCK, BLOCK, len(who) * 3, high, wide)
    changed = flat.permute(2, 3, 0, 4, 1).reshape(len(who), 3, rows, columns)
    _change(image, who, changed)


@functools.lru_cache(maxsize=8)
def _cosines(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The 2-D cosine transform of a flattened block [64, 64], and its quantisation steps [64]."""
    k = torch.arange(BLOCK, dtype=torch.float64)
    basis = torch.cos((2 * k[None, :] + 1) * k[:, None] * math.pi / (2 * BLOCK)) * 0.5
    basis[0] *= math.sqrt(0.5)
    weight = 0.08 * (1.0 + 1.2 * (k[:, None] + k[None, :]))
    return torch.kron(basis, basis).float().to(device), weight.flatten().float().to(device)


def _column(name: str) -> int:
    return COLUMN[name]
