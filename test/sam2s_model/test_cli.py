"""The `sam2s` command: help, exit codes, commands of other packages."""

import argparse
import re
import subprocess
import sys

import pytest

from sam2s_model import cli
from sam2s_model.errors import Sam2sError


def sam2s(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "sam2s_model.cli", *arguments], capture_output=True, text=True
    )


class FakeCommand:
    """A command whose run() does what a test wants."""

    HELP = "for a test"

    def __init__(self, action):
        self.run = action

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--number", type=int, default=3, help="a number")


@pytest.fixture
def command(monkeypatch):
    """Register a command named `fake`."""

    def register(action):
        monkeypatch.setitem(sys.modules, "fake_command", FakeCommand(action))
        monkeypatch.setattr(cli, "command_modules", lambda: {"fake": "fake_command"})

    return register


def test_arguments_and_exit_code_reach_the_command(command):
    command(lambda args: args.number)
    assert cli.main(["fake"]) == 3
    assert cli.main(["fake", "--number", "7"]) == 7


def test_an_expected_error_is_one_sentence_and_code_2(command, capsys):
    def fail(args):
        raise Sam2sError("the lens is dirty: wipe it")

    command(fail)
    assert cli.main(["fake"]) == 2
    assert capsys.readouterr().err == "sam2s fake: the lens is dirty: wipe it\n"


def test_an_unexpected_error_keeps_its_traceback(command):
    def fail(args):
        raise ZeroDivisionError

    command(fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["fake"])


def test_interruption_is_130(command, capsys):
    def interrupt(args):
        raise KeyboardInterrupt

    command(interrupt)
    assert cli.main(["fake"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_unknown_command_is_2_and_lists_the_known():
    done = sam2s("dance")
    assert done.returncode == 2
    assert "invalid choice: 'dance'" in done.stderr
    assert "doctor" in done.stderr


def test_help_lists_every_command():
    done = sam2s("--help")
    assert done.returncode == 0, done.stderr
    for name in cli.command_modules():
        assert re.search(rf"\n    {name}\s", done.stdout), done.stdout


def test_commands_of_other_packages_are_found():
    assert cli.command_modules()["doctor"] == "sam2s_ros.doctor"


@pytest.mark.parametrize("name", sorted(cli.OWN_COMMANDS))
def test_help_of_a_command_needs_no_torch(name):
    code = (
        "import sys\n"
        "from sam2s_model.cli import main\n"
        "try:\n"
        f"    main(['{name}', '--help'])\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0\n"
        "sys.exit(3 if 'torch' in sys.modules else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-500:]


def test_a_reader_that_goes_away_is_no_error():
    code = f"{sys.executable} -m sam2s_model.cli doctor --help | head -c 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", code], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
