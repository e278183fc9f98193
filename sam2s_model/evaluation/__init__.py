"""Judging a tracker over annotated videos: how it is prompted, run, scored, reported and compared.

`sources` finds the clips, `protocol` places the prompts, `clip` tracks and scores one video,
`runner` does so for many, resumably; `scores` adds up, `report` writes it down, `compare` sets two
runs side by side.
"""
