"""Commands of `sam2s` that talk to running nodes; importing one stays cheap, without rclpy."""
