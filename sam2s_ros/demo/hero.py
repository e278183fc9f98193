"""The README's picture: simulated endoscopy with its exact masks and class names."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from sam2s_model.overlay import contact_sheet
from sam2s_model.synth import SurgicalScene
from sam2s_ros.demo.pictures import Labels, Picture, draw_truth

# Seed and frame of each panel, chosen by eye for different operations and instruments.
PANELS = ((8, 0), (19, 100), (12, 50), (17, 100), (1, 60), (14, 0))
WIDTH, HEIGHT = 640, 512  # pixels, rendered
SHOWN = (448, 358)  # pixels, of a panel in the sheet


def write_hero(path: Path) -> None:
    """Render the panels and write them as one picture, two rows of three."""
    path.parent.mkdir(parents=True, exist_ok=True)
    panels = []
    for seed, number in tqdm(PANELS, desc="rendering the README's picture", leave=False):
        scene = SurgicalScene(seed, WIDTH, HEIGHT)
        shot = scene.render(number)
        image: Picture = np.asarray(
            cv2.resize(shot.image, SHOWN, interpolation=cv2.INTER_AREA), np.uint8
        )
        labels: Labels = np.asarray(
            cv2.resize(shot.masks, SHOWN, interpolation=cv2.INTER_NEAREST), np.uint8
        )
        panels.append(draw_truth(image, labels, shot.classes))
    # 256 colours keep the file small; scattering their errors keeps tissue smooth.
    sheet = Image.fromarray(contact_sheet(panels, columns=3))
    sheet.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size:,} bytes")
