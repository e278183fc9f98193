"""What receives images keeps their memory for the images after them."""

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


def pages_of_receiver(ros_env: dict[str, str], malloc: str) -> int:
    """Send images of 4 MB from one process to another: the receiver's new pages in all."""
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
    return int(answers[0].split()[-1])


@pytest.mark.ros
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is kept on Linux only")
def test_images_are_received_without_new_pages(ros_env):
    kept, given_back = (pages_of_receiver(ros_env, how) for how in ("kept", "default"))
    image = WIDTH * HEIGHT * 3 / 4096
    print(f"{given_back - kept} pages fewer for {COUNT} images of {image:.0f} pages")
    # The middleware's message and Python's: both lie where the ones before lay.
    assert given_back - kept > 1.0 * COUNT * image
