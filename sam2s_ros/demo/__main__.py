"""`make demo`, or `python -m sam2s_ros.demo`: the whole system on simulated endoscopy.

Endoscope node and tracker node run as processes of their own; this one marks two instruments,
receives what both publish and leaves overlay.mp4, contact_sheet.png and results.json in out/demo.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sam2s_model.allocator import keep_freed_memory
from sam2s_model.errors import Sam2sError

if TYPE_CHECKING:
    from sam2s_ros.demo.camera import Camera
    from sam2s_ros.demo.stream import Stream, Target
    from sam2s_ros.demo.tracking import NodeTracker

TARGETS = 2
MAX_AHEAD = 600  # frames; bounds the endoscope's memory
AHEAD_SECONDS = 30.0  # of rendering before the stream, enough for all of it on two free cores
START_SECONDS = AHEAD_SECONDS + 60.0  # for imports and the tissue, too
PATIENCE = 2.0  # seconds without a frame that end the stream
SEARCH_SECONDS = 3.0  # of stream in which the targets must come into view


class DemoError(Sam2sError):
    """The demonstration could not begin."""


def parser() -> argparse.ArgumentParser:
    """Declare the options; the defaults are what two cores keep up with."""
    options = argparse.ArgumentParser(
        prog="python -m sam2s_ros.demo",
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    options.add_argument("--seconds", type=float, default=20.0, help="of stream")
    options.add_argument("--width", type=int, default=512, help="pixels")
    options.add_argument("--height", type=int, default=410, help="pixels")
    options.add_argument("--rate", type=float, default=12.5, help="frames per second")
    options.add_argument("--seed", type=int, default=19, help="which operation is seen")
    options.add_argument("--out", type=Path, default=Path("out/demo"), help="folder of results")
    options.add_argument("--hero", type=Path, metavar="PNG", help="only draw the README's picture")
    return options


def main(argv: list[str] | None = None) -> int:
    """Run the demonstration: 0 if it is one, 1 if stream or targets were lost, 2 if it is wrong."""
    args = parser().parse_args(argv)
    try:
        if args.hero:
            from sam2s_ros.demo.hero import write_hero

            write_hero(args.hero)
            return 0
        return run(args)
    except Sam2sError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130


def run(args: argparse.Namespace) -> int:
    """Bring everything up, watch it, and report."""
    if args.seconds <= 0:
        raise DemoError(f"--seconds is {args.seconds:g}; it must be above 0")
    args.out.mkdir(parents=True, exist_ok=True)
    from sam2s_ros.dds import use_profile
    from sam2s_ros.demo.camera import Camera
    from sam2s_ros.demo.tracking import NodeTracker
    from sam2s_ros.shipped import node_weights
    from sam2s_ros.supervisor import interrupt_on_signals

    interrupt_on_signals()  # until rclpy has handlers of its own
    keep_freed_memory()
    parameters = {
        "seed": args.seed, "width": args.width, "height": args.height, "rate": args.rate,
        # All of it before it begins, so that rendering takes nothing from the tracker.
        "ahead": min(max(1, math.ceil(args.rate * args.seconds)), MAX_AHEAD),
        "ahead_wait": AHEAD_SECONDS, "workers": 2, "wait_for_subscriber": True,
    }  # fmt: skip
    model, trained = node_weights(args.out)
    with (
        Camera(parameters, args.out / "endoscope.log") as camera,
        NodeTracker(model, args.out / "tracker.log") as tracker,
    ):
        import rclpy

        from sam2s_ros.demo.stream import Stream

        print("starting the tracker node …", flush=True)
        tracker.bring_up()
        use_profile()
        rclpy.init()
        stream = Stream()
        try:
            tracker.listen(stream)
            stream.listen()
            failures, targets, end = watch(stream, tracker, camera, args.seconds)
        finally:
            code = camera.end()
            stream.destroy_node()
            rclpy.try_shutdown()
    if code and not failures:
        failures.append(f"the endoscope node ended with code {code}: {camera.last_words()}")
    return report(args, stream, tracker, targets, trained, end, failures)


def watch(
    stream: Stream, tracker: NodeTracker, camera: Camera, seconds: float
) -> tuple[list[str], list[Target], int]:
    """Spin until the stream has lasted so long, or broke off; returns what went wrong and its end.

    The targets are marked on the first frame whose truth shows enough of them.
    """
    import rclpy
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
    from tqdm import tqdm

    executor = SingleThreadedExecutor()
    executor.add_node(stream)
    failures: list[str] = []
    targets: list[Target] = []
    begin = time.monotonic()
    bar = tqdm(
        total=seconds, desc="the endoscope renders ahead", unit="s",
        bar_format="{desc} {n:.0f}/{total:.0f} s |{bar:20}| {postfix}", mininterval=0.5,
    )  # fmt: skip
    try:
        while rclpy.ok():
            executor.spin_once(timeout_sec=0.05)
            now = time.monotonic()
            if camera.ended:
                failures.append(f"the endoscope node ended early: {camera.last_words()}")
                break
            if tracker.error is not None:
                failures.append(f"the tracker node failed: {tracker.error}")
                break
            if not stream.frames:
                if now - begin > START_SECONDS:
                    failures.append(f"no frame arrived within {START_SECONDS:.0f} s")
                    break
                continue
            if not bar.n:
                begin = now
            bar.set_description_str("streaming", refresh=False)
            bar.set_postfix_str(
                f"{len(stream.frames)} frames, {len(tracker.results)} tracked", refresh=False
            )
            bar.update(max(min(now - begin, seconds) - bar.n, 1e-6))
            if not targets and now - begin < SEARCH_SECONDS:
                targets = mark_targets(stream, tracker)
            if now - stream.last_arrival > PATIENCE:
                failures.append(f"no frame arrived for {PATIENCE:.0f} s")
                break
            if now - begin >= seconds:
                break
        else:
            raise KeyboardInterrupt
    except ExternalShutdownException as error:
        raise KeyboardInterrupt from error
    finally:
        bar.close()
        executor.shutdown()
    return failures, targets, time.time_ns()


def mark_targets(stream: Stream, tracker: NodeTracker) -> list[Target]:
    """Mark the targets on the newest frame that has its truth; none if it shows too few."""
    from sam2s_ros.demo.stream import choose_targets

    known = stream.frames.keys() & stream.labels.keys()
    if not known or not stream.classes:
        return []
    stamp = max(known)
    targets = choose_targets(stream.labels[stamp], stream.classes, TARGETS)
    if len(targets) < TARGETS:
        return []
    tracker.begin(targets, stamp)
    return targets


def report(
    args: argparse.Namespace,
    stream: Stream,
    tracker: NodeTracker,
    targets: list[Target],
    trained: bool,
    end: int,
    failures: list[str],
) -> int:
    """Write the files, print the table, and return the exit code."""
    from sam2s_ros.demo import summary as summaries
    from sam2s_ros.demo.pictures import Album

    results = list(tracker.results)
    p50, p99 = summaries.latencies(results)
    scored = trained and bool(results)
    j_and_f, hits = summaries.scores(results, targets, stream.labels) if scored else (None, None)
    first = min(stream.frames, default=end)
    offered = sum(stamp >= results[0].stamp for stamp in stream.frames) if results else 0
    summary = summaries.Summary(
        scene=f"{args.width}×{args.height} at {args.rate:g} Hz for {args.seconds:g} s, "
        f"scene {args.seed}, rgb8, best effort",
        trained=trained,
        seconds=(end - first) / 1e9,
        asked=round(args.rate * args.seconds),
        published=max(stream.published, len(stream.frames)),
        received=len(stream.frames),
        tracked=len(results),
        skipped=offered - len(results),
        targets=[target.name for target in targets],
        latency_p50=p50,
        latency_p99=p99,
        silence=(end - results[-1].stamp) / 1e9 if results else None,
        j_and_f=j_and_f,
        class_hits=hits,
        failures=failures,
    )
    summaries.judge(summary, TARGETS)
    written = [args.out / "results.json"]
    if stream.frames:
        album = Album(stream.frames, stream.labels, stream.classes, targets, results, trained)
        album.write_sheet(args.out / "contact_sheet.png")
        album.write_video(args.out / "overlay.mp4", args.rate)
        written += [args.out / "contact_sheet.png", args.out / "overlay.mp4"]
    written[0].write_text(json.dumps(summary.as_json(), indent=1, ensure_ascii=False) + "\n")
    print(f"\n{summary.table()}\n\n{', '.join(map(str, written))}")
    return 1 if summary.failures else 0


if __name__ == "__main__":
    sys.exit(main())
