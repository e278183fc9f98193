"""What a session's state must hold, to be gone on from in another process. ROS-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sam2s_model.errors import Sam2sError
from sam2s_ros.standing import Standing

STATE_FORMAT = "sam2s session"
STATE_VERSION = 1


class SessionStateError(Sam2sError):
    """No session's state, or one that is incomplete or of another version."""


class SavedSession(NamedTuple):
    """The parts of a state."""

    standings: dict[str, Standing]  # by the targets' names
    tracker: Mapping[str, Any]  # for StreamTracker.load_state_dict, which checks it
    free_values: Any  # label values that may be given out, in this order
    frame_id: str  # of the last image


def read_session(state: object) -> SavedSession:
    """Take a state apart; refuse what Session.state_dict has not made."""
    if not isinstance(state, Mapping) or state.get("format") != STATE_FORMAT:
        raise SessionStateError(
            "this is no session's state; give one that was written by ~/save_state"
        )
    if state.get("version") != STATE_VERSION:
        raise SessionStateError(
            f"the state has version {state.get('version')}, this program reads {STATE_VERSION}; "
            "save it again with this version"
        )
    try:
        standings = {name: Standing.of(kept) for name, kept in state["standings"].items()}
        tracker = state["tracker"]
        saved = SavedSession(standings, tracker, state["free_values"], str(state["frame_id"]))
        complete = set(standings) == {*tracker["targets"], *tracker["pending"]}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SessionStateError(f"the state is damaged: {error!r}; use another one") from error
    if not complete:
        raise SessionStateError("the state is damaged: its targets differ; use another one")
    return saved
