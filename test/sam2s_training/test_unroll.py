"""A clip in training is a clip at run time, with gradients."""

import dataclasses

import numpy as np
import pytest
import torch

from sam2s_model import ModelConfig, Prompt, Sam2s, StreamTracker
from sam2s_model.config import MemorySettings, TrackSettings
from sam2s_model.exclusion import rival_of
from sam2s_model.random_weights import lively_model
from sam2s_training.data.clip import Clip
from sam2s_training.losses import LossSettings
from sam2s_training.prompts import PromptSettings
from sam2s_training.unroll import Unroll, UnrollError, UnrollSettings

SIZE = 96
CONFIG = ModelConfig.preset("nano", image_size=SIZE)
SIDE = 15  # of the squares; erosions of 1, 2 and 4 pixels leave just the middle
BY_CLICK = PromptSettings(
    click=1, box=0, mask=0, more_clicks=0, correct=0, late=0, middle=1, box_jitter=0
)
BY_BOX = dataclasses.replace(BY_CLICK, click=0, box=1)
BY_MASK = dataclasses.replace(BY_CLICK, click=0, mask=1)
BEGINNINGS = {"click": BY_CLICK, "box": BY_BOX, "mask": BY_MASK}


def clip(frames: int, targets: int = 2, seed: int = 0, long: int = 0, stride: int = 1) -> Clip:
    """Squares of noise that wander over noise."""
    random = np.random.default_rng(seed)
    images = torch.from_numpy(random.integers(0, 255, (frames, 3, SIZE, SIZE), np.uint8))
    masks = torch.zeros(targets, frames, SIZE, SIZE, dtype=torch.bool)
    for n in range(targets):
        for t in range(frames):
            top, left = 10 + 30 * n + 2 * t, 20 + 3 * t
            masks[n, t, top : top + SIDE, left : left + SIDE] = True
    numbers = tuple(range(0, frames * stride, stride))
    return Clip(images, masks, torch.arange(targets) - 1, f"clip {seed}", numbers, long)


def tracked(model, one: Clip, prompts, memory, track=None) -> torch.Tensor:
    tracker = StreamTracker(model, memory, track=track or TrackSettings())
    for n, prompt in enumerate(prompts):
        tracker.add_target(f"{n}", prompt)
    drawn = []
    for image in one.images:
        result = tracker.step(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
        drawn.append(torch.stack([result[f"{n}"].low_res_logits for n in range(len(prompts))]))
    return torch.stack(drawn, dim=1)


def prompt(kind: str, mask: torch.Tensor) -> Prompt:
    rows, columns = torch.where(mask)
    x, y = int(columns.min()), int(rows.min())
    if kind == "click":
        return Prompt(points=[[x + SIDE // 2, y + SIDE // 2]], labels=[1])
    if kind == "box":
        return Prompt(box=[x, y, x + SIDE, y + SIDE])
    return Prompt(mask=mask.numpy())


@pytest.mark.parametrize("policy", ["divemem", "sam2"])
@pytest.mark.parametrize("kind", ["click", "box", "mask"])
def test_unrolled_masks_are_the_trackers(policy, kind):
    model = lively_model(CONFIG, seed=3)
    one = clip(8)
    # Without candidates for the long-term memory, and with memories in full precision.
    memory = MemorySettings(policy=policy, iou_threshold=1.0)
    expected = tracked(model, one, [prompt(kind, mask[0]) for mask in one.masks], memory)
    unrolled = Unroll(model, LossSettings(semantic=0), BEGINNINGS[kind])
    with torch.no_grad():
        logits = unrolled([one], [7]).logits
    torch.testing.assert_close(logits, expected, atol=2e-3, rtol=1e-4)
    assert expected.std() > 0.1  # masks of some contrast, or agreeing would be easy


@pytest.mark.parametrize("kind", ["click", "mask"])
def test_unrolled_masks_that_share_no_pixel_are_the_trackers(kind):
    model = lively_model(CONFIG, seed=3)
    one, other = clip(8, targets=3), clip(8, targets=1, seed=1)
    memory = MemorySettings(iou_threshold=1.0)
    begin = [prompt(kind, mask[0]) for mask in one.masks]
    expected = tracked(model, one, begin, memory, TrackSettings(exclusive=True))
    settings = UnrollSettings(exclusive=True)
    unrolled = Unroll(model, LossSettings(semantic=0), BEGINNINGS[kind], settings)
    with torch.no_grad():
        logits = unrolled([one, other], [7, 8]).logits[:3]
    torch.testing.assert_close(logits, expected, atol=2e-3, rtol=1e-4)
    overlapping = tracked(model, one, begin, memory)
    assert (overlapping - expected).abs().max() > 0.05  # sharing pixels is remembered


def test_a_rival_is_compared_by_outline_too():
    """Where two targets claim all, each one's mask alone has the overlap that the other lost."""
    one = clip(1)
    half = SIZE // 2
    one.masks[:] = False
    one.masks[0, 0, :half] = one.masks[1, 0, half:] = True

    class Claiming(Sam2s):
        def draw(self, *args):
            masks = super().draw(*args)
            certain = torch.full_like(masks.logits, 4.0)
            side = certain.shape[-1] // 2
            certain[0, :, :side] = certain[1, :, side:] = 8.0
            return masks._replace(logits=certain)

    dice = [
        Unroll(Claiming(CONFIG), LossSettings(semantic=0), BY_CLICK, settings)([one], [0]).parts
        for settings in (UnrollSettings("truth"), UnrollSettings("truth", exclusive=True))
    ]
    assert dice[0]["focal"] == dice[1]["focal"]
    assert dice[0]["dice"] > 0.3
    assert dice[1]["dice"] < 0.03
    assert dice[0]["drawn_iou"] == pytest.approx(0.5)
    assert dice[1]["drawn_iou"] == pytest.approx(1.0)


def test_a_rivals_claim_is_pushed_back():
    logits = torch.tensor([1.0, 3.0, 2.0])[:, None, None, None].requires_grad_()
    lead = logits - rival_of(logits)
    assert lead.flatten().tolist() == [-2, 1, -1]
    lead[0].sum().backward()
    assert logits.grad.flatten().tolist() == [1, -1, 0]


def test_a_clip_is_the_same_in_any_batch():
    unrolled = Unroll(Sam2s(CONFIG), LossSettings(semantic=0))
    clips = [clip(4, targets=1, seed=1), clip(4, targets=2, seed=2)]
    both = unrolled(clips, [11, 12])
    alone = [unrolled([one], [seed]) for one, seed in zip(clips, (11, 12), strict=True)]
    torch.testing.assert_close(both.loss, (alone[0].loss + alone[1].loss) / 2)
    torch.testing.assert_close(
        both.logits, torch.cat([a.logits for a in alone]), atol=1e-4, rtol=1e-4
    )


def roles(one: Clip, frame: int) -> list[int]:
    """Roles that the memory of the clip's first target has on a frame, oldest entry first."""
    seen: list[list[int]] = []

    class Watching(Sam2s):
        def attend_memory(self, features, memory, semantics=True):
            shown = memory.seen[0, : memory.role.shape[1]]
            seen.append([int(r) for r, s in zip(memory.role[0], shown, strict=True) if s])
            return super().attend_memory(features, memory, semantics)

    with torch.no_grad():
        Unroll(Watching(CONFIG), unroll=UnrollSettings(presence="truth"), prompt=BY_CLICK)(
            [one], [0]
        )
    return seen[frame - 1]


def test_scattered_frames_take_the_long_term_slots():
    conditional, long = CONFIG.num_recent, CONFIG.num_recent + 1
    hybrid = clip(8, long=2)
    assert roles(hybrid, 1) == [conditional]
    assert roles(hybrid, 3) == [conditional, long, long]
    assert roles(hybrid, 7) == [conditional, long, long, 3, 2, 1, 0]
    assert roles(clip(8), 7) == [conditional, 5, 4, 3, 2, 1, 0]
    assert roles(clip(9), 8) == [conditional, 5, 4, 3, 2, 1, 0]  # the window holds six


def test_a_frame_without_the_target_leaves_no_memory():
    one = clip(4, targets=1)
    one.masks[0, 1] = False
    assert roles(one, 3) == [CONFIG.num_recent, 0]


def test_absence_teaches_presence_alone():
    model = Sam2s(CONFIG)
    one = clip(2, targets=1)
    one.masks[0, 1] = False
    settings = LossSettings(semantic=0)
    out = Unroll(model, settings, BY_MASK)([one], [0])
    # The first frame was given as a mask and the second is empty: there is no shape to learn.
    assert out.parts["focal"] == 0
    assert out.parts["dice"] == 0
    assert out.parts["presence"] > 0


def test_each_part_of_the_model_learns():
    torch.manual_seed(0)
    model = Sam2s(CONFIG)
    text = torch.nn.functional.normalize(torch.randn(5, CONFIG.semantic_dim), dim=1)
    # A gate that is open: an untrained model is confident of nothing.
    settings = LossSettings(semantic_iou=0.0, semantic_presence=0.0)
    asked = PromptSettings(late=0, more_clicks=1, correct=1)
    unrolled = Unroll(model, settings, asked, UnrollSettings(presence="truth"), text)
    clips = [clip(4, seed=s, long=1) for s in range(6)]
    for one in clips:
        one.masks[1, 2] = False
    unrolled(clips, list(range(6))).loss.backward()
    still = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    # Of the three ambiguous masks only the best one learns its shape, perhaps always the same.
    heads = {n for n in still if "output_hypernetworks_mlps" in n}
    assert len({n.split(".")[2] for n in heads}) <= 2
    # What SAM 2 never uses, and what an absent frame would write, which is not written.
    assert still - heads <= {"no_mem_pos_enc", "no_obj_embed_spatial", "no_obj_ptr"}


def test_recomputing_changes_no_gradient():
    def gradients(again: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = Sam2s(CONFIG)
        Unroll(model, unroll=UnrollSettings(presence="truth", checkpoint=again))(
            [clip(3)], [5]
        ).loss.backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    for plain, again in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(plain, again)


@pytest.mark.parametrize("ambiguity", ["none", "entropy", "gaussian"])
def test_a_few_steps_on_one_clip_lower_the_loss(ambiguity):
    torch.manual_seed(0)
    model = Sam2s(CONFIG)
    unrolled = Unroll(
        model,
        LossSettings(ambiguity=ambiguity, scale=1),
        BY_CLICK,
        UnrollSettings(presence="truth"),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    values = []
    for _ in range(12):
        loss = unrolled([clip(3)], [0]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.7 * values[0]


def test_masks_are_compared_in_quarters_of_the_picture_but_not_coarser_than_drawn():
    def shape_loss(stride: int, scale: int) -> float:
        model = lively_model(dataclasses.replace(CONFIG, mask_stride=stride))
        parts = Unroll(model, LossSettings(scale=scale), BY_CLICK)([clip(1)], [5]).parts
        return float(parts["dice"])

    assert shape_loss(2, 1) == shape_loss(2, 2) == pytest.approx(shape_loss(4, 2), rel=1e-4)
    assert len({round(shape_loss(4, scale), 4) for scale in (1, 2, 4)}) == 3
    assert shape_loss(2, 4) != pytest.approx(shape_loss(2, 2), rel=1e-4)


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ([], "at least one clip"),
        ([clip(2), clip(3)], "alike"),
        ([dataclasses.replace(clip(2), numbers=(1,))], "2 frames but 1 frame numbers"),
        ([clip(2, targets=0)], "target"),
        (
            [dataclasses.replace(clip(2), images=torch.zeros(2, 3, 64, 64, dtype=torch.uint8))],
            "64 pixels, but the model takes 96",
        ),
    ],
)
def test_clips_that_make_no_batch_are_refused(clips, message):
    with pytest.raises(UnrollError, match=message):
        Unroll(Sam2s(CONFIG))(clips, [0] * len(clips))


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(UnrollError, match="truth"):
        UnrollSettings(presence="guess")


def text_of(classes: int) -> torch.Tensor:
    """Embeddings at right angles, so that nothing is alike before it is learned."""
    return torch.eye(classes, CONFIG.semantic_dim)


def forty_steps(unrolled: Unroll, learner: torch.nn.Module, one: Clip) -> list[dict]:
    """Train on one clip; the parts of each step's loss."""
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-3)
    parts = []
    for _ in range(40):
        optimizer.zero_grad()
        output = unrolled([one], [0])
        output.loss.backward()
        optimizer.step()
        parts.append(output.parts)
    return parts


def test_naming_needs_no_memory():
    only = dict.fromkeys(("focal", "dice", "iou", "presence", "semantic"), 0.0)
    model = lively_model(CONFIG, seed=2)
    unrolled = Unroll(model, LossSettings(naming=1.0, **only), BY_CLICK, text=text_of(4))
    output = unrolled([clip(1, targets=3)], [0])  # one picture: nothing is ever tracked
    assert output.parts["naming"] > 0
    assert output.parts["name_right"].isfinite()
    assert output.parts["class_right"].isnan()
    output.loss.backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert any(name.startswith("semantic.read_frame") for name in moved)
    assert any(name.startswith("image_encoder.trunk") for name in moved)
    assert not any(name.startswith("sam_mask_decoder") for name in moved)


def test_naming_leaves_tissue_and_absent_frames_out():
    unrolled = Unroll(Sam2s(CONFIG), LossSettings(naming=1.0), BY_CLICK, text=text_of(4))
    tissue = clip(2, targets=1)  # its class is -1
    assert float(unrolled([tissue], [0]).parts["naming"]) == 0
    whole = clip(2, targets=2)
    gone = dataclasses.replace(whole, masks=whole.masks.clone())
    gone.masks[:, 1] = False
    first = dataclasses.replace(whole, images=whole.images[:1], masks=whole.masks[:, :1])
    first = dataclasses.replace(first, numbers=whole.numbers[:1])
    counted = [float(unrolled([one], [0]).parts["naming"]) for one in (gone, first, whole)]
    assert counted[0] == pytest.approx(counted[1])
    assert counted[0] != pytest.approx(counted[2])


def test_tissue_unlearns_names():
    """What is no instrument is called by none after some steps, in pictures and when tracked."""
    torch.manual_seed(0)
    one = clip(2, targets=2)
    one = dataclasses.replace(one, classes=torch.full_like(one.classes, -1))
    only = dict.fromkeys(("focal", "dice", "iou", "presence"), 0.0)
    always = {"semantic_iou": 0.0, "semantic_presence": 0.0}
    for also in ("naming", "semantic"):  # where names are looked for
        model = lively_model(CONFIG, seed=2)
        model.has_semantics = True
        with torch.no_grad():
            model.semantic.log_scale.fill_(4.0)
        others = {"semantic": 0.0, "naming": 0.0, also: 1.0}
        settings = LossSettings(unnamed=1.0, **only, **always, **others)
        unrolled = Unroll(model, settings, BY_CLICK, text=text_of(4))
        parts = forty_steps(unrolled, model.semantic, one)
        assert float(parts[0]["unnamed"]) > 0
        assert float(parts[-1]["unnamed"]) < 0.2 * float(parts[0]["unnamed"])
        assert float(parts[-1][also]) == 0  # there is no instrument


def test_instruments_keep_out_of_the_unnamed():
    settings = LossSettings(naming=1.0, semantic=0.0, unnamed=1.0)
    unrolled = Unroll(lively_model(CONFIG, seed=2), settings, BY_CLICK, text=text_of(4))
    whole = clip(1, targets=2)
    named = dataclasses.replace(whole, classes=torch.zeros_like(whole.classes))
    assert float(unrolled([named], [0]).parts["unnamed"]) == 0


def test_names_are_learned_where_instruments_are():
    """Two targets of different textures: their classes are told apart after some steps."""
    torch.manual_seed(0)
    one = clip(1, targets=3)
    for n, (low, high) in enumerate(((0, 60), (100, 160), (200, 255))):
        shape = one.images[0][:, one.masks[n, 0]].shape
        noise = np.random.default_rng(n).integers(low, high, shape, np.uint8)
        one.images[0][:, one.masks[n, 0]] = torch.from_numpy(noise)
    model = Sam2s(CONFIG)
    only = dict.fromkeys(("focal", "dice", "iou", "presence", "semantic"), 0.0)
    unrolled = Unroll(model, LossSettings(naming=1.0, **only), BY_CLICK, text=text_of(2))
    parts = forty_steps(unrolled, model, one)
    assert float(parts[-1]["naming"]) < 0.5 * float(parts[0]["naming"])
    assert float(parts[-1]["name_right"]) == 1
