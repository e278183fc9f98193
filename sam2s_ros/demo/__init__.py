"""The demonstration: a simulated endoscope, the tracker, and what came of it.

`__main__` puts the parts together: `camera` runs the endoscope node as a process of its own,
`stream` receives its topics, `tracking` tracks the newest frame, `summary` counts and judges,
`pictures` draws. Where the tracker runs is known to `tracking` alone.
"""
