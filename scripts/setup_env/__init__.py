"""Makes this checkout ready to run: what `make setup` calls. Needs only Python's standard library.

Two ways to have ROS 2. With a distribution sourced (ROS_DISTRO is set), its rclpy and colcon are
used and the virtual environment only adds what the distribution lacks. Without one, the virtual
environment gets ROS 2 as wheels. Either way colcon builds sam2s_msgs into .ros/, and env.sh is
written last, so a person can `source env.sh` and work by hand.

Each step leaves a stamp with a hash of its inputs, so a second call does only what has changed,
and a call that was interrupted goes on where it stopped. Exit codes: 0 ready, 2 something is
missing (one sentence says what and how to get it), 130 interrupted.
"""
