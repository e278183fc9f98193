"""SAM2S: streaming segmentation and tracking of surgical instruments and tissue, without ROS."""
