"""The reference SAM 2 video predictor behind the tracker's interface, to compare against.

Needs the package `sam2`, which nothing else here imports. The predictor wants a whole video; it
is given frames one by one instead, scaled by our own preprocessing, so that both networks see
the same numbers. It keeps each frame's output for ever, as it always does.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam2s_model.errors import Sam2sError
from sam2s_model.prompt import Prompt
from sam2s_model.runtime.eager import scale_to_input

CONFIGS = {
    "tiny": "configs/sam2.1/sam2.1_hiera_t.yaml",
    "small": "configs/sam2.1/sam2.1_hiera_s.yaml",
    "base_plus": "configs/sam2.1/sam2.1_hiera_b+.yaml",
    "large": "configs/sam2.1/sam2.1_hiera_l.yaml",
}
STAGES = {  # the predictor's methods that do what our stages do
    "forward_image": "encode_image",
    "_prepare_memory_conditioned_features": "attend_memory",
    "_forward_sam_heads": "decode",
    "_encode_new_memory": "encode_memory",
}


class ReferenceUnavailableError(Sam2sError):
    """The reference package is not installed, or has no such preset."""


class ReferenceResult(NamedTuple):
    """One target on one frame, as the reference sees it."""

    logits: NDArray[np.float32]  # HxW at source size
    object_score: float
    iou: float


class ReferenceTracker:
    """Frames in, masks out, by the reference predictor as its builder makes it.

    Its filling of small holes is switched off: it needs a CUDA extension and does nothing
    without it.
    """

    def __init__(
        self, preset: str, image_size: int, weights: Mapping[str, Tensor], device: str = "cpu"
    ) -> None:
        if preset not in CONFIGS:
            raise ReferenceUnavailableError(
                f"the reference has no preset '{preset}'; it has {', '.join(CONFIGS)}"
            )
        try:
            from sam2 import sam2_video_predictor
            from sam2.build_sam import build_sam2_video_predictor
        except ImportError as error:
            raise ReferenceUnavailableError(
                "the reference package is not installed; `make setup` installs it, or "
                "`SAM2_BUILD_CUDA=0 pip install --no-deps --no-build-isolation sam2==1.1.0`"
            ) from error
        sam2_video_predictor.tqdm = _no_progress
        overrides = [f"++model.image_size={image_size}", "++model.fill_hole_area=0"]
        self.predictor = build_sam2_video_predictor(
            CONFIGS[preset], device=device, hydra_overrides_extra=overrides
        )
        self.predictor.load_state_dict(dict(weights))
        self.image_size = image_size
        self.device = torch.device(device)
        self.stage_ms: dict[str, float] = {}
        self._watch()
        self._state: dict[str, Any] | None = None
        self._pending: dict[str, Prompt] = {}
        self._frame = 0

    def add_target(self, name: str, prompt: Prompt) -> None:
        """Mark or correct a target on the next frame."""
        self._pending[name] = prompt

    def remove_target(self, name: str) -> None:
        """Forget a target."""
        self.predictor.remove_object(self._state, name, need_output=False)

    @torch.inference_mode()
    def step(self, frame: NDArray[np.uint8]) -> dict[str, ReferenceResult]:
        """Track all targets on the next frame, uint8 HxWx3 RGB."""
        self.stage_ms = dict.fromkeys(STAGES.values(), 0.0)
        image = scale_to_input(frame, self.image_size, self.device)[0]
        if self._state is None:
            self._state = self._begin(*frame.shape[:2])
        state = self._state
        images: list[Tensor | None] = state["images"]
        if images:
            images[-1] = None  # seen, and never asked for again
        images.append(image)
        state["num_frames"] = max(len(images), 16)  # so many pointers are kept from the start
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self._propagate(state)

    def _propagate(self, state: dict[str, Any]) -> dict[str, ReferenceResult]:
        known = set(state["obj_ids"])
        for name, prompt in self._pending.items():
            if name not in known:
                self._prompt(state, name, prompt)
        logits: dict[str, Tensor] = {}
        for _, names, masks in self.predictor.propagate_in_video(
            state, start_frame_idx=self._frame, max_frame_num_to_track=0
        ):
            logits.update(zip(names, masks[:, 0], strict=True))
        for name, prompt in self._pending.items():
            if name in known:
                _, names, masks = self._prompt(state, name, prompt)
                logits[name] = masks[names.index(name), 0]
        results = {}
        for name, mask in logits.items():
            out = self._output(state, name)
            score = float(out["object_score_logits"])
            results[name] = ReferenceResult(mask.float().cpu().numpy(), score, out["iou"])
        self._pending = {}
        self._frame += 1
        return results

    def _prompt(self, state: dict[str, Any], name: str, prompt: Prompt) -> Any:
        if prompt.mask is not None:
            return self.predictor.add_new_mask(state, self._frame, name, prompt.mask)
        return self.predictor.add_new_points_or_box(
            state,
            self._frame,
            name,
            points=prompt.points,
            labels=prompt.labels,
            box=prompt.box,
        )

    def _output(self, state: dict[str, Any], name: str) -> dict[str, Any]:
        """What the predictor kept of this frame; a correction waits in a place of its own."""
        index = state["obj_id_to_idx"][name]
        for kept in ("temp_output_dict_per_obj", "output_dict_per_obj"):
            for kind in ("cond_frame_outputs", "non_cond_frame_outputs"):
                if self._frame in state[kept][index][kind]:
                    out: dict[str, Any] = state[kept][index][kind][self._frame]
                    return out
        raise KeyError(f"the reference has no output for {name} on frame {self._frame}")

    def _begin(self, height: int, width: int) -> dict[str, Any]:
        """Open a video of one grey picture and replace it by an empty list of frames."""
        import cv2

        with tempfile.TemporaryDirectory() as folder:
            picture = np.full((height, width, 3), 127, np.uint8)
            cv2.imwrite(str(Path(folder) / "00000.jpg"), picture)
            state: dict[str, Any] = self.predictor.init_state(folder)
        state["images"] = []
        state["cached_features"] = {}
        return state

    def _watch(self) -> None:
        """Time the stages, and keep the predicted IoU that the predictor throws away."""
        predictor = self.predictor
        last = {"iou": 0.0}
        heads, as_output = predictor._forward_sam_heads, predictor._use_mask_as_output
        single_frame = predictor._run_single_frame_inference

        def forward_sam_heads(*args: Any, **kwargs: Any) -> Any:
            outputs = heads(*args, **kwargs)
            last["iou"] = float(outputs[2].max() if outputs[2].shape[1] > 1 else outputs[2][0, 0])
            return outputs

        def use_mask_as_output(*args: Any, **kwargs: Any) -> Any:
            outputs = as_output(*args, **kwargs)
            last["iou"] = float(outputs[2][0, 0])
            return outputs

        def run_single_frame_inference(*args: Any, **kwargs: Any) -> Any:
            compact, masks = single_frame(*args, **kwargs)
            compact["iou"] = last["iou"]
            return compact, masks

        predictor._forward_sam_heads = forward_sam_heads
        predictor._use_mask_as_output = use_mask_as_output
        predictor._run_single_frame_inference = run_single_frame_inference
        for method, stage in STAGES.items():
            setattr(predictor, method, self._timed(getattr(predictor, method), stage))

    def _timed(self, method: Any, stage: str) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            with self._clock(stage):
                return method(*args, **kwargs)

        return run

    @contextmanager
    def _clock(self, stage: str) -> Iterator[None]:
        begin = perf_counter()
        yield
        self.stage_ms[stage] = self.stage_ms.get(stage, 0.0) + (perf_counter() - begin) * 1e3


def _no_progress(iterable: Any, **_: object) -> Any:
    return iterable
