"""What a session lets one choose; every default stands here, and config/tracker.yaml shows it."""

from __future__ import annotations

from dataclasses import dataclass

from sam2s_model.errors import Sam2sError


class SessionSettingsError(Sam2sError):
    """A setting that a session cannot work with."""


@dataclass(frozen=True)
class SessionSettings:
    """How far back prompts may reach, and how fast they are brought up to the present."""

    history_seconds: float = 2.0  # how long ago a stamped prompt's image may be; 0: no history
    history_frames: int = 64  # ... and how many frames ago; each takes 3·S² bytes (0.2 MB for nano)
    # Frames of the past that are tracked again for a stamped prompt with each new image. More
    # bring its target sooner, but delay the results of the others meanwhile; 0: all at once.
    catch_up_steps: int = 3
    # Seconds by which an image's stamp may lie behind the newest one's and still count as late;
    # farther back, the clock has jumped, as when a bag loops.
    jump_back: float = 1.0

    def __post_init__(self) -> None:
        for name in ("history_seconds", "jump_back"):
            if not 0.0 <= getattr(self, name) <= 3600.0:
                raise SessionSettingsError(
                    f"{name} is {getattr(self, name)}; it must lie in 0..3600 seconds"
                )
        if self.history_frames < 1:
            raise SessionSettingsError(
                f"history_frames is {self.history_frames}; it must be at least 1"
            )
        if self.catch_up_steps < 0 or self.catch_up_steps == 1:
            raise SessionSettingsError(
                f"catch_up_steps is {self.catch_up_steps}; it must be 0 (all at once) or at least "
                "2, for with 1 the present is never reached"
            )
