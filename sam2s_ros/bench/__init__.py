"""Times the tracker node over DDS, between processes: `sam2s bench ros`.

`source` is the camera, a process of its own that also marks the targets; `session` starts it and
the tracker node and receives the results; `figures` judges them against what is asked of the node.
"""
