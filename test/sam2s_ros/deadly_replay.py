"""Settings of a replay whose process dies, as when memory runs out; importable by that process."""

import os
from dataclasses import fields

from sam2s_ros.replay.settings import ReplaySettings


class DeadlySettings(ReplaySettings):
    """Dies when the tracker is made."""

    def build(self):
        os._exit(9)


def settings(weights):
    """These settings with weights that exist."""
    import replay_bags

    kind = replay_bags.settings(weights)
    return DeadlySettings(**{f.name: getattr(kind, f.name) for f in fields(kind)})
