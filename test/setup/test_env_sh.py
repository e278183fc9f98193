"""The script that a person sources."""

import subprocess

import pytest

WRITE = (
    "from scripts.setup_env import environment, layout\n"
    "layout.write_whole(layout.ENV_SH, environment.env_sh())\n"
)


@pytest.fixture
def written(checkout):
    """A checkout with stand-ins for what set-up makes, and its env.sh."""
    (checkout.venv / "bin").mkdir(parents=True)
    python = checkout.venv / "bin" / "python"
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    (checkout.venv / "lib" / "python3.11" / "site-packages" / "ros_rcl.libs").mkdir(parents=True)
    module = checkout.root / ".ros/install/sam2s_msgs/lib/python3.11/site-packages/sam2s_msgs"
    module.mkdir(parents=True)
    (module / "__init__.py").touch()
    (checkout.root / ".ros" / "ready").touch()
    checkout.python(WRITE)
    return checkout


def source(checkout, shell, script, **variables):
    done = subprocess.run(
        [shell, "-c", script],
        cwd="/",
        env={**checkout.env, **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_sets_everything_and_does_not_grow(written, shell):
    root = written.root
    show = "printf '%s\\n' $PATH $PYTHONPATH $LD_LIBRARY_PATH $AMENT_PREFIX_PATH"
    show += " $FASTDDS_DEFAULT_PROFILES_FILE $_ROS_WHEELS_BOOTSTRAP_COMPLETE"
    once = source(written, shell, f". {root}/env.sh; {show}")
    twice = source(written, shell, f". {root}/env.sh; . {root}/env.sh; {show}")
    assert once == twice
    path, python_path, libraries, prefixes, profile, bootstrapped = once
    interfaces = f"{root}/.ros/install/sam2s_msgs"
    assert path == f"{root}/.venv/bin:{written.env['PATH']}"
    assert python_path == f"{interfaces}/lib/python3.11/site-packages"
    site = f"{root}/.venv/lib/python3.11/site-packages"
    assert libraries == f"{interfaces}/lib:{root}/.venv/lib:{site}/ros_rcl.libs"
    assert prefixes == f"{interfaces}:{root}/.venv"
    assert profile == f"{root}/config/fastdds.xml"
    assert bootstrapped == "1"


def test_keeps_what_the_person_set(written):
    show = "echo $FASTDDS_DEFAULT_PROFILES_FILE; echo $PYTHONPATH; echo $RMW_IMPLEMENTATION"
    own = {
        "FASTDDS_DEFAULT_PROFILES_FILE": "/my/own.xml",
        "PYTHONPATH": "/my/modules",
        "RMW_IMPLEMENTATION": "rmw_of_mine",
    }
    lines = source(written, "sh", f". {written.root}/env.sh; {show}", **own)
    assert lines[0] == "/my/own.xml"
    assert lines[1].endswith(":/my/modules")
    assert lines[2] == "rmw_of_mine"


def test_unfinished_set_up_is_refused(written):
    (written.root / ".ros" / "ready").unlink()
    script = f". {written.root}/env.sh; echo code $? path $PYTHONPATH"
    done = subprocess.run(["bash", "-c", script], env=written.env, capture_output=True, text=True)
    assert done.stdout == "code 2 path\n"
    assert done.stderr.count("\n") == 1
    assert "is not finished: run `make setup` there" in done.stderr


def test_with_a_distribution_its_own_script_comes_first(written):
    written.python(WRITE, ROS_DISTRO="jazzy")
    text = (written.root / "env.sh").read_text()
    assert '. "/opt/ros/jazzy/setup.sh"' in text
    assert "_ROS_WHEELS_BOOTSTRAP_COMPLETE" not in text
    assert f'AMENT_PREFIX_PATH "{written.root}/.ros/install/sam2s_msgs"' in text
    assert f'AMENT_PREFIX_PATH "{written.venv}"' not in text


def test_a_distribution_elsewhere_is_found_by_its_setup_script(written):
    prefix = written.root / "my_jazzy"
    prefix.mkdir()
    (prefix / "setup.sh").touch()
    layers = f"/some/overlay/package:{prefix}"
    written.python(WRITE, ROS_DISTRO="jazzy", AMENT_PREFIX_PATH=layers)
    assert f'. "{prefix}/setup.sh"' in (written.root / "env.sh").read_text()
