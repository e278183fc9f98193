"""How set-up gets over what an interrupted run left, and over what the wheels carry wrong."""

import subprocess
import sys
import threading
import time

from scripts.setup_env.steps import ALONE


def test_interrupted_environment_is_made_again(checkout):
    """Killed while making .venv: the next run starts it anew; here it then stops at pip."""
    checkout.venv.mkdir()
    (checkout.venv / ".sam2s-unfinished").touch()
    (checkout.venv / "leftover").touch()
    names = ("torch", "setuptools", "wheel", *ALONE)
    pins = "".join(f"{name}==0\n" for name in names)
    (checkout.root / "constraints.txt").write_text(pins)
    done = checkout.setup(PIP_NO_INDEX="1", PIP_FIND_LINKS="/nowhere", PIP_CONFIG_FILE="/dev/null")
    assert done.returncode == 2
    assert "[2/7] PyTorch failed: " in done.stderr
    assert "setuptools==0" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (checkout.venv / "leftover").exists()
    assert not (checkout.venv / ".sam2s-unfinished").exists()
    assert (checkout.venv / "bin" / "python").exists()
    assert not (checkout.root / "env.sh").exists()
    again = checkout.setup(PIP_NO_INDEX="1", PIP_FIND_LINKS="/nowhere", PIP_CONFIG_FILE="/dev/null")
    assert "[1/7]" not in again.stdout


def test_packages_that_were_not_finished_are_forgotten(checkout):
    """pip writes INSTALLER last, and would take a package without it for complete."""
    site = checkout.venv / "lib" / "python3.11" / "site-packages"
    for name in ("whole-1.dist-info", "half-1.dist-info", "~alf-0.dist-info", "half"):
        (site / name).mkdir(parents=True)
    (site / "whole-1.dist-info" / "INSTALLER").touch()
    (site / "half-1.dist-info" / "RECORD").touch()
    checkout.python("from scripts.setup_env.repair import heal_packages; heal_packages()")
    assert sorted(path.name for path in site.iterdir()) == ["half", "whole-1.dist-info"]


def test_cmake_files_point_at_this_python(checkout):
    subprocess.run(
        [sys.executable, "-m", "venv", "--system-site-packages", checkout.venv], check=True
    )
    site = next(checkout.venv.glob("lib/python*/site-packages"))
    (site / "numpy").mkdir()
    (site / "numpy" / "__init__.py").write_text("def get_include():\n    return '/here/numpy'\n")
    folder = checkout.venv / "share" / "some_msgs" / "cmake"
    folder.mkdir(parents=True)
    foreign = "/opt/python/cp311-cp311"
    exported = folder / "export.cmake"
    exported.write_text(
        f'X "{foreign}/include/python3.11;'
        f'{foreign}/lib/python3.11/site-packages/numpy/_core/include"\n'
    )
    code = "from scripts.setup_env.repair import mend_cmake_paths as mend; mend(); mend()"
    checkout.python(code)
    include = checkout.python("import sysconfig; print(sysconfig.get_path('include'))").strip()
    assert exported.read_text() == f'X "{include};/here/numpy"\n'


def test_fingerprint_follows_names_and_contents(checkout):
    code = (
        "from scripts.setup_env.steps import fingerprint, ROOT\n"
        "print(fingerprint([ROOT / 'sam2s_msgs', 'text']))"
    )
    first = checkout.python(code)
    assert checkout.python(code) == first
    message = checkout.root / "sam2s_msgs" / "msg" / "Box2D.msg"
    message.write_text(message.read_text() + "# more\n")
    second = checkout.python(code)
    message.rename(message.with_name("Box3D.msg"))
    assert len({first, second, checkout.python(code)}) == 3


def test_two_set_ups_wait_for_each_other(checkout):
    code = (
        "import time\n"
        "from scripts.setup_env.__main__ import alone\n"
        "with alone():\n"
        "    print('in', time.time()); time.sleep(1); print('out', time.time())\n"
    )
    outputs = []
    threads = [
        threading.Thread(target=lambda: outputs.append(checkout.python(code))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
        time.sleep(0.2)
    for thread in threads:
        thread.join()
    times = [
        [float(line.split()[1]) for line in text.splitlines() if line.startswith(("in", "out"))]
        for text in outputs
    ]
    (_, first_out), (second_in, _) = sorted(times)
    assert second_in >= first_out
    assert sum("waiting for it" in text for text in outputs) == 1
