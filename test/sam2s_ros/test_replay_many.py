"""Many bags: in processes, in shards, again after a stop; one that fails; two runs compared."""

import json
import shutil

import pytest
import torch

pytestmark = pytest.mark.ros

if torch.get_num_threads() > 1:
    torch.set_num_threads(1)  # networks this small only wait for each other


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    import replay_bags

    return replay_bags.weights(tmp_path_factory.mktemp("weights") / "nano.safetensors")


@pytest.fixture(scope="module")
def bags(tmp_path_factory):
    """Three bags, one of them below another folder, and one that is none."""
    import replay_bags as rb

    root = tmp_path_factory.mktemp("bags")
    rb.write_bag(root / "a", 8)
    rb.write_bag(root / "b", 9)
    (root / "later").mkdir()
    rb.write_bag(root / "later" / "c", 10)
    (root / "broken").mkdir()
    (root / "broken" / "broken_0.db3").write_bytes(b"SQLite format 3\0" + bytes(2000))
    return root


@pytest.fixture
def run(weights, bags, capsys):
    """`sam2s replay BAGS --out OUT …`: exit code, stdout, stderr."""
    import replay_bags as rb

    from sam2s_model import cli

    def replay(out, *arguments, root=bags):
        command = ["replay", str(root), "--out", str(out), "--truth", rb.LABELS, "--quiet"]
        code = cli.main(
            [*command, "--weights", str(weights), "--set", "threads=1", *map(str, arguments)]
        )
        said = capsys.readouterr()
        return code, said.out, said.err

    return replay


def merged(out):
    return json.loads((out / "results.json").read_text())


def test_a_bag_that_fails_is_named_and_the_others_finish(run, tmp_path):
    out = tmp_path / "out"
    code, said, errors = run(out, "--jobs", 2)
    assert code == 1
    assert "3 of 4 bags are finished" in said
    assert "failed: broken: " in errors
    content = merged(out)
    assert [bag["name"] for bag in content["bags"]] == ["a", "b", "later/c"]
    assert [bag["frames"] for bag in content["bags"]] == [8, 9, 10]
    assert list(content["failures"]) == ["broken"]
    assert not (out / "broken").exists()
    assert set(content["scores"]["bags"]) == {"a", "b", "later/c"}
    assert content["summary"]["targets"] == 6
    page = (out / "report.html").read_text()
    for name in ("a", "b", "later/c"):
        assert f'href="{name}/report.html"' in page
        assert (out / name / "report.html").is_file()
    assert "Bags that failed" in page
    assert not list(out.rglob(".*")), "nothing half-written"


def test_a_restart_goes_on_where_it_stopped(run, weights, bags, tmp_path):
    """What is finished is not touched; what changed, or was cut off, is done again."""
    import replay_bags as rb

    root, out = tmp_path / "bags", tmp_path / "out"
    shutil.copytree(bags, root, ignore=shutil.ignore_patterns("broken"))
    assert run(out, root=root)[0] == 0
    before = {name: (out / name / "results.json").stat().st_mtime_ns for name in ("a", "b")}
    shutil.rmtree(out / "b")
    shutil.rmtree(root / "later" / "c")
    rb.write_bag(root / "later" / "c", 6)
    (out / ".b.part" / "new" / "bag").mkdir(parents=True)  # as a killed process leaves it
    assert run(out, root=root)[0] == 0
    assert not (out / ".b.part").exists()
    after = {name: (out / name / "results.json").stat().st_mtime_ns for name in ("a", "b")}
    assert after["a"] == before["a"]
    assert after["b"] != before["b"]
    assert [bag["frames"] for bag in merged(out)["bags"]] == [8, 9, 6]
    # Another memory policy is another run: all is done again.
    assert run(out, "--memory", "sam2", root=root)[0] == 0
    assert (out / "a" / "results.json").stat().st_mtime_ns != after["a"]


def test_shards_share_the_bags(run, tmp_path):
    out = tmp_path / "out"
    run(out, "--shard", "1/2")
    first = merged(out)
    assert len(first["bags"]) + len(first["failures"]) == 2
    assert len(first["missing"]) == 2
    assert "Bags not replayed yet" in (out / "report.html").read_text()
    run(out, "--shard", "2/2")
    both = merged(out)
    assert [bag["name"] for bag in both["bags"]] == ["a", "b", "later/c"]
    assert list(both["failures"]) == ["broken"]
    assert both["missing"] == []
    code, _, errors = run(out, "--shard", "3/2")
    assert code == 2
    assert "i must be from 1 to n" in errors


def test_a_process_that_dies_is_named(weights, bags, tmp_path):
    import deadly_replay

    from sam2s_ros.replay.batch import find_tasks, replay_all

    settings = deadly_replay.settings(weights)
    tasks = [t for t in find_tasks(bags, tmp_path / "out") if t.name == "a"]
    (tmp_path / "out").mkdir()
    outcomes = replay_all(tasks, settings, tmp_path / "out", jobs=2, show_progress=False)
    dead = "its process died (killed, or out of memory?)"
    assert {o.task.name: o.failure for o in outcomes} == {"a": dead}


@pytest.fixture(scope="module")
def two_runs(weights, bags, tmp_path_factory):
    """The same bag with two memory policies."""
    import replay_bags as rb

    from sam2s_ros.replay.runner import replay_bag

    out = tmp_path_factory.mktemp("runs")
    for memory in ("divemem", "sam2"):
        settings = rb.settings(weights, memory=memory, inputs={"truth": rb.LABELS})
        replay_bag(bags / "later" / "c", out / memory, settings)
    return out


def test_two_settings_side_by_side(two_runs, tmp_path, capsys):
    from sam2s_model import cli

    page = tmp_path / "compared.html"
    arguments = [str(two_runs / "divemem"), str(two_runs / "sam2"), "--out", str(page)]
    assert cli.main(["replay", "compare", *arguments]) == 0
    said = capsys.readouterr().out
    assert "tracker memory" in said
    assert "divemem" in said
    for heading in ("Against the truth", "Without the truth", "Agreement of the masks"):
        assert f"## {heading}" in said
        assert f"<h2>{heading}</h2>" in page.read_text()
    for name in ("left", "right"):
        assert page.read_text().count(f'aria-label="timeline of {name}"') == 2, "A's and B's"
    assert cli.main(["replay", "compare", *([str(two_runs / "sam2")] * 2)]) == 0
    same = capsys.readouterr().out
    assert "none" in same
    line = next(line for line in same.splitlines() if line.startswith("| c left"))
    cells = [cell.strip() for cell in line.split("|")[2:7]]
    assert cells[0] == cells[1] != "n/a", "J&F of the one and of the other"
    assert cells[2:] == ["100.0", "0", "none"]


def test_replays_of_different_images_are_not_compared(two_runs, weights, bags, tmp_path, capsys):
    import replay_bags as rb

    from sam2s_model import cli
    from sam2s_ros.replay.runner import replay_bag

    replay_bag(bags / "a", tmp_path / "a", rb.settings(weights))
    assert cli.main(["replay", "compare", str(two_runs / "sam2"), str(tmp_path / "a")]) == 2
    assert "were not replayed from the same images" in capsys.readouterr().err
    assert cli.main(["replay", "compare", str(two_runs / "sam2"), str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_many_are_compared_with_many(run, two_runs, tmp_path, capsys):
    from sam2s_model import cli

    for memory in ("divemem", "sam2"):
        run(tmp_path / memory, "--memory", memory, "--shard", "2/2")
    arguments = [str(tmp_path / "divemem"), str(tmp_path / "sam2")]
    assert cli.main(["replay", "compare", *arguments]) == 0
    said = capsys.readouterr().out
    assert "2 bags" in said
    assert "c right" in said


def test_the_merged_report_can_be_written_anew(run, tmp_path, capsys):
    from sam2s_model import cli

    run(tmp_path / "out", "--shard", "1/4")
    (tmp_path / "out" / "report.html").unlink()
    assert cli.main(["replay", "merge", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "report.html").is_file()
    assert cli.main(["replay", "merge", str(tmp_path / "nothing")]) == 2
    assert "holds no replays" in capsys.readouterr().err


def test_the_program_for_ros2_run_is_the_command(tmp_path, capsys, monkeypatch):
    """`ros2 run sam2s_ros replay …`; what ROS 2 adds for nodes is left aside."""
    from sam2s_ros.replay import main

    words = ["replay", str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", [*words, "--ros-args", "-r", "__node:=replay"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "there is no such bag" in capsys.readouterr().err
