"""Large images between processes, and the profile that carries them."""

import os

import pytest

from sam2s_ros.dds import PROFILE_VARIABLES, profile_in_use, profile_path, with_profile
from sam2s_ros.share import SharedFileMissingError, shared_file
from sam2s_ros.transport_probe import ProbeError, ProbeSettings, probe


def test_profile_is_added_but_never_replaces_another():
    assert profile_in_use({}) is None
    added = with_profile({"HOME": "/nowhere"})
    assert added["HOME"] == "/nowhere"
    assert profile_in_use(added) == profile_path()
    own = {PROFILE_VARIABLES[1]: "/etc/robot.xml"}
    assert with_profile(own) == own


def test_missing_shared_file_names_the_remedy():
    with pytest.raises(SharedFileMissingError, match=r"config/nothing\.yaml .*make setup"):
        shared_file("config", "nothing.yaml")


@pytest.mark.ros
@pytest.mark.serial
def test_full_hd_images_cross_processes(ros_env):
    result = probe(ProbeSettings(count=200, rate=30.0, width=1920, height=1080), ros_env)
    assert result.sent == 200
    assert result.received >= 199, result
    assert result.median_ms < 33, result


@pytest.mark.ros
@pytest.mark.serial
def test_without_the_profile_large_images_are_lost(ros_env):
    """The reason for the profile; if this ever fails, the profile can go."""
    bare = {name: value for name, value in ros_env.items() if name not in PROFILE_VARIABLES}
    result = probe(ProbeSettings(count=30), bare, add_profile=False)
    assert result.received < 15, result


@pytest.mark.ros
def test_probe_says_when_processes_do_not_meet(ros_env):
    """A profile with no transport that the other process could be reached by."""
    lonely = {**ros_env, "ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"}
    with pytest.raises(ProbeError, match="do not discover each other"):
        probe(ProbeSettings(count=3, match_seconds=2), lonely)


@pytest.mark.ros
def test_probe_says_why_a_process_failed(ros_env):
    broken = {**ros_env, "RMW_IMPLEMENTATION": "rmw_of_nobody"}
    with pytest.raises(ProbeError, match=r"process of the image probe failed: .*rmw"):
        probe(ProbeSettings(count=3, match_seconds=2), broken)


def test_env_sh_of_this_run_sets_the_profile():
    """`make test` runs inside env.sh; whoever runs pytest by hand should too."""
    used = profile_in_use(os.environ)
    assert used is not None, "source env.sh"
    assert used.is_file()
