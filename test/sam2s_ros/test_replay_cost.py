"""What a replay costs: reading beside tracking, and memory over a long bag."""

import itertools
import os
import time

import numpy as np
import psutil
import pytest
import torch

pytestmark = pytest.mark.ros

FRAMES = 40
LONG = 20_000


def write_raw(path, frames):
    """A bag of raw rgb8 images of 640×512."""
    import replay_bags as rb

    from sam2s_ros.bags.writer import BagWriter
    from sam2s_ros.conversions import rgb_to_image

    noise = np.random.default_rng(0).integers(0, 256, (512, 640, 3), np.uint8)
    with BagWriter(path) as bag:
        for number in range(frames):
            noise[0, 0, 0] = number
            stamp = rb.BEGIN + number * rb.STEP
            bag.write(rb.IMAGE, rgb_to_image(noise, rb.header(stamp)), stamp)
    return path


@pytest.mark.serial
def test_reading_is_no_bottleneck(tmp_path):
    """Raw 640×512 is read at least five times as fast as two targets are tracked (nano)."""
    from sam2s_model import Prompt, StreamTracker
    from sam2s_model.config import ModelConfig
    from sam2s_model.random_weights import lively_model
    from sam2s_ros.bags.reader import Bag
    from sam2s_ros.replay.frames import FrameReader, image_topic
    from sam2s_ros.session import PromptRequest, Session

    path = write_raw(tmp_path / "bag", FRAMES)

    def reading():
        start = time.perf_counter()
        with Bag(path) as bag:
            images = [f.image.shape for f in FrameReader(bag, image_topic(bag, None), 1.0)]
        assert images == [(512, 640, 3)] * FRAMES
        return FRAMES / (time.perf_counter() - start)

    session = Session(StreamTracker(lively_model(ModelConfig.preset("nano"))))
    image = np.random.default_rng(1).integers(0, 256, (512, 640, 3), np.uint8)
    prompts = [
        PromptRequest(name, Prompt(points=[[x, 200]], labels=[1]))
        for name, x in (("a", 100), ("b", 400))
    ]
    session.process(0, "", image, prompts)

    stamps = itertools.count(1)

    def tracking(steps):
        start = time.perf_counter()
        for _ in range(steps):
            session.process(next(stamps) * 40_000_000, "", image)
        return steps / (time.perf_counter() - start)

    tracking(3)
    rates = [(reading(), tracking(10)) for _ in range(3)]
    ratio = float(np.median([read / tracked for read, tracked in rates]))
    read, tracked = np.median(rates, axis=0)
    print(f"raw 640×512: read {read:.0f} frames a second, tracked {tracked:.1f}: {ratio:.1f} times")
    assert ratio >= 5


def test_saving_costs_little(tmp_path):
    """What goes into the journal, so that a replay can be gone on with, beside tracking it."""
    from sam2s_model import Prompt, StreamTracker
    from sam2s_model.config import ModelConfig
    from sam2s_model.random_weights import lively_model
    from sam2s_ros.replay.journal import STEPS, Journal, Step
    from sam2s_ros.session import PromptRequest, Session

    session = Session(StreamTracker(lively_model(ModelConfig.preset("nano", image_size=256))))
    image = np.random.default_rng(1).integers(0, 256, (512, 640, 3), np.uint8)
    prompts = [
        PromptRequest(name, Prompt(points=[[x, 200]], labels=[1]))
        for name, x in (("a", 100), ("b", 400))
    ]
    journal = Journal(tmp_path / "journal", "mark")
    tracking, saving = [], []
    for number in range(10):
        begin = time.process_time()
        result = session.process(number * 40_000_000, "", image, [] if number else prompts)
        tracking.append(time.process_time() - begin)
        begin = time.process_time()
        journal.add(Step((), (), result), prompts)
        saving.append(time.process_time() - begin)
    journal.save(session.state_dict(), 10, 0.0)
    track, save = 1e3 * np.median(tracking), 1e3 * np.median(saving)
    size = (tmp_path / "journal" / STEPS).stat().st_size / 10_000
    print(f"tracked in {track:.0f} ms, saved in {save:.1f} ms and {size:.0f} kB a frame")
    assert save < 0.15 * track


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("first", [0, LONG - 100], ids=["tracked", "mostly-read"])
def test_memory_stays_flat_over_a_long_bag(tmp_path, first):
    """20,000 frames, within 300 MB above the model: two targets all along, or at the end only."""
    import replay_bags as rb

    from sam2s_ros.replay.runner import replay_bag

    torch.set_num_threads(1)
    prompts = "prompts:\n" + "".join(
        f"  - {{frame: {first}, name: {name}, points: [[{x}, 40]]}}\n"
        for name, x in (("left", 24), ("right", 70))
    )
    bag = rb.write_bag(tmp_path / "bag", LONG, truth=False, prompts=prompts)
    settings = rb.settings(rb.weights(tmp_path / "nano.safetensors"))
    tracker = settings.build()
    process = psutil.Process(os.getpid())
    samples = [process.memory_info().rss]

    def watch(done, total):
        if done % 1000 == 0:
            samples.append(process.memory_info().rss)

    results = replay_bag(bag, tmp_path / "out", settings, tracker, progress=watch)
    assert results["input"]["frames"] == LONG
    grown = [(sample - samples[0]) / 2**20 for sample in samples]
    print("MB above the model, every 1000 frames:", " ".join(f"{mb:.0f}" for mb in grown))
    end = (process.memory_info().rss - samples[0]) / 2**20
    print(f"at the end, with the report written: {end:.0f}")
    assert max(*grown, end) < 300
    assert grown[-1] - grown[5] < 100
