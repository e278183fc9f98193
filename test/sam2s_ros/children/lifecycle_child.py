"""A lifecycle node for tests: `lifecycle_child [refuse|slow|crash] --ros-args …`."""

import os
import sys
import time
from pathlib import Path

import rclpy
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn


class Child(LifecycleNode):
    def __init__(self, manner: str, marker: Path) -> None:
        super().__init__("child")
        self.manner, self.marker = manner, marker

    def on_configure(self, state):
        if self.manner == "crash" and not self.marker.exists():
            self.marker.touch()  # only the first time
            os._exit(9)
        if self.manner == "slow":
            time.sleep(2.0)
        if self.manner == "refuse":
            self.get_logger().error("there are no weights")
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state):
        print("child is active", flush=True)
        return super().on_activate(state)


if __name__ == "__main__":
    rclpy.init()
    rclpy.spin(Child(sys.argv[1], Path(sys.argv[2])))
