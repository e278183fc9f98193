"""Small bags for the tests of replay: two discs that move, with their truth and prompts."""

from pathlib import Path

import numpy as np

WIDTH, HEIGHT = 96, 80
BEGIN, STEP = 1_700_000_000_000_000_000, 40_000_000
IMAGE, LABELS, OBJECTS = "/camera/image", "/truth/label_map", "/truth/objects"
CLASSES = {1: "grasper", 2: "liver"}
PROMPTS = """\
prompts:
  - {frame: 0, name: left, points: [[24, 40]], class: grasper}
  - {stamp: 1700000000.120000000, name: right, box: [58, 28, 82, 52]}
  - {frame: 8, name: left, points: [[24, 40], [60, 70]], labels: [1, 0]}
"""


def weights(path, size=64):
    """Random weights of the smallest preset, seeing less than a stamp, so that they are fast."""
    from sam2s_model.config import ModelConfig
    from sam2s_model.random_weights import lively_weights
    from sam2s_model.weights import save_weights

    config = ModelConfig.preset("nano", image_size=size)
    about = {"preset": "nano", "image_size": size, "source": "random"}
    save_weights(path, lively_weights(config, seed=3), about)
    return path


def settings(weights_path, *, memory="divemem", inputs=(), outputs=()):
    """Settings of a replay with these weights."""
    from sam2s_ros.replay.settings import Inputs, Outputs, ReplaySettings, node_settings

    return ReplaySettings(
        node=node_settings(None, {"model": str(weights_path), "memory": memory, "threads": 1}),
        inputs=Inputs(**dict(inputs)),
        outputs=Outputs(**dict(outputs)),
    )


def scene(number):
    """Picture (H, W, 3) and instance ids (H, W) of a frame; disc 2 is away from 12 to 20."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[(x - 24 - number / 4) ** 2 + (y - 40) ** 2 < 100] = 1
    if not 12 <= number < 20:
        ids[(x - 70 + number / 4) ** 2 + (y - 40) ** 2 < 144] = 2
    picture = np.random.default_rng(number).integers(60, 90, (HEIGHT, WIDTH, 3), np.uint8)
    picture[ids == 1] = (200, 200, 210)
    picture[ids == 2] = (150, 60, 50)
    return picture, ids


def header(stamp_ns):
    from sam2s_ros.headers import header_message

    return header_message(stamp_ns, "endoscope")


def write_bag(
    path,
    frames=24,
    *,
    storage="sqlite3",
    compression="none",
    stamps=None,
    jpeg=False,
    prompts=PROMPTS,
    truth=True,
    change=None,
):
    """Write a bag; `change(number, message)` may spoil an image."""
    from sam2s_ros.bags.writer import BagWriter
    from sam2s_ros.compressed import rgb_to_compressed
    from sam2s_ros.conversions import labels_to_image, rgb_to_image
    from sam2s_ros.ground_truth import true_objects

    stamps = stamps or [BEGIN + number * STEP for number in range(frames)]
    with BagWriter(path, storage, compression) as bag:
        for number, stamp in enumerate(stamps):
            picture, ids = scene(number)
            message = (rgb_to_compressed if jpeg else rgb_to_image)(picture, header(stamp))
            if change is not None:
                change(number, message)
            bag.write(IMAGE, message, BEGIN + number * STEP)
            if truth:
                objects = true_objects(ids, CLASSES)
                objects.header = header(stamp)
                # As recorded: the truth comes a little later than its image.
                bag.write(LABELS, labels_to_image(ids, header(stamp)), BEGIN + number * STEP + 900)
                bag.write(OBJECTS, objects, BEGIN + number * STEP + 901)
        if prompts:
            bag.add_file("prompts.yaml", prompts)
    return path


def messages(bag_path, topic, kind):
    """All messages of a topic as objects."""
    from sam2s_ros.bags.reader import Bag, decode

    with Bag(Path(bag_path)) as bag:
        return [decode(message, kind) for message in bag.messages(topic)]


def raw_messages(bag_path):
    """All messages of a bag as they are stored."""
    from sam2s_ros.bags.reader import Bag

    with Bag(Path(bag_path)) as bag:
        return [(m.topic, m.time_ns, m.data) for m in bag.messages(*bag.topics)]


def files(folder):
    """Names of everything in a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*"))
