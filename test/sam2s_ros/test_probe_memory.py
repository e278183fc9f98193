"""What receives images keeps their memory for the images after them."""

import json
import subprocess
import sys

import pytest

from sam2s_ros.dds import with_profile

# A side of the probe, and the pages that the kernel has given its process by the end.
PROGRAM = """
import resource, sys
from sam2s_ros.transport_probe import main
code = main()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
sys.exit(code)
"""
COUNT, WIDTH, HEIGHT = 40, 1280, 1024


def receive(ros_env: dict[str, str], malloc: str) -> tuple[int, int]:
    """Send images of 4 MB to another process: how many it got, and its new pages in all."""
    sizes = ["--count", str(COUNT), "--rate", "20", "--width", str(WIDTH), "--height", str(HEIGHT)]
    environment = with_profile({**ros_env, "SAM2S_MALLOC": malloc})
    receiver, sender = (
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, side, *sizes],
            env=environment, stdout=subprocess.PIPE, text=True,
        )
        for side in ("receive", "send")
    )  # fmt: skip
    answers = [process.communicate(timeout=60)[0] for process in (receiver, sender)]
    assert receiver.returncode == sender.returncode == 0, answers
    told, pages = answers[0].splitlines()[-2:]
    return int(json.loads(told)["received"]), int(pages)


@pytest.mark.ros
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is kept on Linux only")
def test_images_are_received_without_new_pages(ros_env):
    (_, kept), (images, given_back) = (receive(ros_env, how) for how in ("kept", "default"))
    size = WIDTH * HEIGHT * 3 / 4096
    print(f"{given_back - kept} pages fewer for {images} images of {size:.0f} pages")
    assert images >= COUNT / 8, "on busy cores some are lost, but not nearly all"
    # The middleware's message and Python's: both lie where the ones before lay.
    assert given_back - kept > 1.0 * images * size
