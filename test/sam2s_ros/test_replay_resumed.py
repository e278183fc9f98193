"""A replay that was interrupted inside a bag goes on from where its journal ends."""

import json

import pytest
import torch

pytestmark = pytest.mark.ros

if torch.get_num_threads() > 1:
    torch.set_num_threads(1)  # networks this small only wait for each other

# Additions, a correction, a removal, and prompts that are refused, before and after the stop.
PROMPTS = """\
prompts:
  - {frame: 0, name: left, points: [[24, 40]], class: grasper}
  - {frame: 0, name: left, points: [[24, 40], [60, 70]], labels: [1, 0]}
  - {frame: 3, name: right, box: [58, 28, 82, 52]}
  - {frame: 5, name: beside, points: [[500, 500]]}
  - {frame: 9, remove: nobody}
  - {frame: 10, remove: left}
  - {frame: 13, name: left, points: [[24, 40]]}
  - {frame: 15, name: beside, points: [[500, 500]]}
  - {frame: 18, remove: right}
"""
EVERY, STOP = (
    6,
    16,
)  # frames between two savings at most; frames done when the replay is interrupted


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    import replay_bags

    return replay_bags.weights(tmp_path_factory.mktemp("weights") / "nano.safetensors")


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    """Two targets that overlap now and then, and a clock that jumps back."""
    import replay_bags as rb

    stamps = [rb.BEGIN + n * rb.STEP - (60_000_000_000 if n > 10 else 0) for n in range(24)]
    return rb.write_bag(tmp_path_factory.mktemp("bags") / "case", stamps=stamps, prompts=PROMPTS)


@pytest.fixture
def replay(bag, weights, tmp_path):
    """Replay the bag into a folder, in full or with an interruption; gives all that came out."""
    import replay_bags as rb

    from sam2s_ros.replay.runner import replay_bag

    def run(name, stop=None, every=EVERY):
        out = tmp_path / name
        video = tmp_path / f"{name}.mp4"
        settings = rb.settings(
            weights, inputs={"truth": rb.LABELS}, outputs={"overlay": str(video)}
        )

        def interrupt(done, total):
            if done == stop:
                raise KeyboardInterrupt

        try:
            replay_bag(bag, out, settings, progress=interrupt, save_every=every)
        except KeyboardInterrupt:
            assert not out.exists()
            assert not video.exists()
            return None
        content = json.loads((out / "results.json").read_text())
        timing = content.pop("timing")
        files = {f: (out / f).read_bytes() for f in rb.files(out) if (out / f).is_file()}
        pictures = {name: data for name, data in files.items() if name.startswith("worst")}
        return (
            timing["resumed_at"],
            content,
            rb.raw_messages(out / "bag"),
            pictures,
            (video.read_bytes()),
        )

    return run


def test_the_rest_is_tracked_and_all_is_the_same(replay, tmp_path):
    resumed, *whole = replay("whole")
    assert resumed is None
    assert replay("cut", stop=STOP) is None
    assert {path.name for path in (tmp_path / ".cut.part").iterdir()} == {"journal", "lock"}
    resumed, *again = replay("cut")
    # With the 13th frame it was saved for sure; on a slow machine also later.
    assert 13 <= resumed <= STOP
    assert again == whole
    assert not (tmp_path / ".cut.part").exists()
    assert "cannot be removed" in " ".join(whole[0]["problems"])


def test_it_may_be_interrupted_again_and_again(replay):
    _, *whole = replay("whole")
    for stop in (8, 14, 15, 22):
        assert replay("cut", stop=stop) is None
    resumed, *again = replay("cut")
    assert 19 <= resumed <= 22
    assert again == whole


@pytest.mark.parametrize("spoil", ["cut off", "another", "gone"])
def test_a_journal_that_does_not_fit_is_thrown_away(replay, tmp_path, spoil):
    _, *whole = replay("whole")
    assert replay("cut", stop=STOP) is None
    journal = tmp_path / ".cut.part" / "journal"
    steps = journal / "steps"
    if spoil == "cut off":
        steps.write_bytes(steps.read_bytes()[:-100])
    elif spoil == "gone":
        steps.unlink()
    else:
        state = torch.load(journal / "state")
        state["session"]["tracker"]["frame"] += 7
        torch.save(state, journal / "state")
    resumed, *again = replay("cut")
    assert resumed is None
    assert again == whole


def test_other_settings_begin_anew(bag, weights, replay, tmp_path):
    import replay_bags as rb

    from sam2s_ros.replay.runner import replay_bag

    assert replay("cut", stop=STOP) is None
    results = replay_bag(bag, tmp_path / "cut", rb.settings(weights, memory="sam2"))
    assert results["timing"]["resumed_at"] is None


def test_one_process_at_a_time(bag, weights, tmp_path):
    import replay_bags as rb

    from sam2s_ros.replay.errors import OutputExistsError
    from sam2s_ros.replay.runner import replay_bag

    settings = rb.settings(weights)

    def intrude(done, total):
        if done == 2:
            with pytest.raises(OutputExistsError, match="another process"):
                replay_bag(bag, tmp_path / "out", settings)

    replay_bag(bag, tmp_path / "out", settings, progress=intrude)
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_journal_makes_nothing_but_steps(tmp_path):
    """Whoever may write there must not get code to run."""
    import pickle
    import struct
    import zlib

    from sam2s_ros.replay.journal import Journal, JournalError

    class Bomb:
        def __reduce__(self):
            return eval, ("open('boom', 'w')",)

    journal = Journal(tmp_path / "journal", "mark")
    journal.save({}, 1, 0.0)
    data = zlib.compress(pickle.dumps(Bomb()))
    (tmp_path / "journal" / "steps").write_bytes(struct.pack("<I", len(data)) + data)
    with pytest.raises(JournalError, match="no part of a step"):
        Journal(tmp_path / "journal", "mark").recall([])
