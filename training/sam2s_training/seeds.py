"""Seeds of everything random: functions of the recipe's seed and a number, never of the past."""

from __future__ import annotations

import numpy as np

WEIGHTS, PROMPTS, GLOBAL = 1, 2, 3  # streams: what the numbers are for


def seed_of(seed: int, stream: int, *numbers: int) -> int:
    """Mix a seed, a stream and numbers such as a clip's index into one 63-bit seed."""
    words = np.random.SeedSequence([seed, stream, *numbers]).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))
