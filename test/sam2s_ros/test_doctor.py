"""`sam2s doctor` on this machine, and in environments that are broken on purpose."""

import json
import os
import subprocess
import sys

import pytest

from sam2s_ros.dds import PROFILE_VARIABLES


def doctor(env, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "sam2s_model.cli", "doctor", *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )


def findings(env):
    done = doctor(env, "--json")
    assert done.stdout.count("\n") == 1, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert done.returncode == (0 if report["healthy"] else 1)
    return {finding["name"]: finding for finding in report["findings"]}


@pytest.mark.ros
@pytest.mark.serial
def test_healthy_environment(ros_env):
    found = findings(ros_env)
    for name in ("Python", "torch", "ROS 2", "RMW", "sam2s_msgs", "DDS profile", "image codecs"):
        assert found[name]["status"] == "ok", found[name]
    assert found["image transport"]["status"] == "ok", found["image transport"]
    assert "of 30 full-HD images" in found["image transport"]["detail"]
    for finding in found.values():
        assert finding["status"] in ("ok", "degraded", "missing")
        assert bool(finding["remedy"]) == (finding["status"] != "ok"), finding


@pytest.mark.ros
def test_without_the_profile_it_says_so(ros_env):
    bare = {name: value for name, value in ros_env.items() if name not in PROFILE_VARIABLES}
    found = findings(bare)
    assert found["DDS profile"]["status"] == "missing"
    assert "source env.sh" in found["DDS profile"]["remedy"]
    assert found["image transport"]["status"] != "ok"


@pytest.mark.ros
def test_a_profile_that_is_not_there_is_noticed(ros_env):
    found = findings({**ros_env, **dict.fromkeys(PROFILE_VARIABLES, "/nowhere/dds.xml")})
    assert found["DDS profile"]["status"] == "missing"
    assert found["DDS profile"]["detail"] == "/nowhere/dds.xml does not exist"


@pytest.mark.ros
def test_without_built_interfaces(ros_env):
    """As for a person who forgot to source env.sh."""
    done = doctor({name: value for name, value in ros_env.items() if name != "PYTHONPATH"})
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("missing   sam2s_msgs"))
    assert "make setup" in lines[at + 1]
    assert lines[-1].startswith("not ready: sam2s_msgs")


def test_broken_ros_and_broken_torch(tmp_path):
    """Packages that raise at import are reported, and the rest is still examined."""
    for module in ("rclpy", "torch"):
        (tmp_path / module).mkdir()
        (tmp_path / module / "__init__.py").write_text("raise OSError('lib.so: no such file')\n")
    found = findings({**os.environ, "PYTHONPATH": str(tmp_path)})
    for name in ("torch", "ROS 2"):
        assert found[name]["status"] == "missing"
        assert found[name]["detail"] == "OSError: lib.so: no such file"
        assert found[name]["remedy"]
    assert found["Python"]["status"] == "ok"
    assert found["image codecs"]["status"] == "ok"
