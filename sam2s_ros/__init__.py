"""ROS 2 nodes around the tracker of sam2s_model: messages in, messages out."""

__version__ = "0.1.0"
