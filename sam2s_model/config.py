"""Every size and default of the model, its memory and its track states, in one place."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Any, Literal

from sam2s_model.errors import Sam2sError

MEMORY_POLICIES = ("sam2", "divemem", "efp")
MemoryPolicyName = Literal["sam2", "divemem", "efp"]


class ConfigError(Sam2sError):
    """A preset or setting that does not exist or cannot work."""


class UnknownPresetError(ConfigError):
    """A preset name outside the registry."""

    def __init__(self, name: str) -> None:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        super().__init__(f"there is no preset '{name}'.{hint} Presets: {', '.join(PRESETS)}")


@dataclass(frozen=True)
class ModelConfig:
    """Shapes of one model. The defaults are SAM 2.1's; a preset changes what it must."""

    name: str = "custom"  # the preset's name, kept in checkpoints and snapshots
    image_size: int = 512  # side of the square network input in pixels; a multiple of 32

    # Hiera trunk
    embed_dim: int = 96  # channels of the first stage, doubled by each later one
    num_heads: int = 1  # attention heads of the first stage, doubled by each later one
    stages: tuple[int, int, int, int] = (1, 2, 7, 2)  # blocks per stage
    global_blocks: tuple[int, ...] = (5, 7, 9)  # blocks that attend over the whole image
    windows: tuple[int, int, int, int] = (8, 4, 14, 7)  # attention window per stage, in tokens
    pos_grid: int = 7  # side of the learned background position grid

    # everything above the trunk
    hidden_dim: int = 256  # channels of features, tokens and object pointers
    memory_dim: int = 64  # channels of a spatial memory; divides hidden_dim
    memory_pool: int = 1  # memories see the features averaged over squares of this many cells
    attention_layers: int = 4  # layers of memory attention
    attention_mlp: int = 2048  # feed-forward width in memory attention
    decoder_mlp: int = 2048  # feed-forward width in the mask decoder
    mask_stride: int = 4  # 2: the decoder's masks are enlarged before one is chosen; 4: as SAM 2
    clicks_in_turn: bool = False  # a new target's clicks are drawn one by one, over the mask before

    # memory bank capacities, which fix the shapes of its slots
    num_recent: int = 6  # short-term spatial memories
    num_pointers: int = 16  # time scale of object pointers; num_pointers - 1 recent ones are kept
    max_conditional: int = 4  # prompted frames kept per target: the first and the newest ones

    # semantics
    semantic_heads: int = 8  # attention heads of the CLS token
    semantic_dim: int = 384  # width of x'c, the embedding compared with the text bank's

    def __post_init__(self) -> None:
        if not isinstance(self.image_size, int) or self.image_size % 32 or self.image_size < 64:
            raise ConfigError(
                f"image_size {self.image_size} does not work: it must be a multiple of 32 and at "
                "least 64, for example 512 or 1024"
            )
        if self.hidden_dim % self.memory_dim:
            raise ConfigError(
                f"memory_dim {self.memory_dim} must divide hidden_dim {self.hidden_dim}, because "
                "an object pointer is split into memory tokens"
            )
        if self.memory_pool < 1 or self.feature_size % self.memory_pool:
            raise ConfigError(
                f"memory_pool is {self.memory_pool}; it must be at least 1 and divide the "
                f"{self.feature_size} cells a side of the features at image_size {self.image_size}"
            )
        if self.mask_stride not in (2, 4):
            raise ConfigError(f"mask_stride is {self.mask_stride}; it must be 2 or 4")
        if self.max_conditional < 2 or self.num_recent < 1 or self.num_pointers < 2:
            raise ConfigError(
                "the memory needs max_conditional >= 2, num_recent >= 1 and num_pointers >= 2, "
                f"not {self.max_conditional}, {self.num_recent} and {self.num_pointers}"
            )

    @property
    def feature_size(self) -> int:
        """Side of the stride-16 feature map, in cells."""
        return self.image_size // 16

    @property
    def memory_size(self) -> int:
        """Side of a spatial memory, in its own, pooled cells."""
        return self.feature_size // self.memory_pool

    @property
    def memory_mask_size(self) -> int:
        """Side of the masks that memories are made from, in pixels."""
        return 16 * self.memory_size

    @property
    def mask_size(self) -> int:
        """Side of the mask logits that are chosen from, remembered and given out."""
        return self.image_size // self.mask_stride

    @property
    def prompt_mask_size(self) -> int:
        """Side of the mask prompts that the decoder takes, in pixels at stride 4."""
        return self.image_size // 4

    @staticmethod
    def preset(name: str, **changes: Any) -> ModelConfig:
        """Give the named preset with some of its fields changed."""
        if name not in PRESETS:
            raise UnknownPresetError(name)
        fields = {field.name for field in dataclasses.fields(ModelConfig)} - {"name"}
        for key in changes:
            if key not in fields:
                near = difflib.get_close_matches(key, fields, n=1)
                hint = f"; did you mean '{near[0]}'?" if near else ""
                raise ConfigError(f"a model has no setting '{key}'{hint}")
        return dataclasses.replace(PRESETS[name], **changes)


PRESETS: dict[str, ModelConfig] = {
    # Ours: for two CPU cores. Same code path, every width cut to what live video allows.
    "nano": ModelConfig(
        name="nano",
        image_size=256,
        embed_dim=32,
        stages=(1, 2, 4, 1),
        global_blocks=(4, 6),
        windows=(8, 4, 8, 8),
        hidden_dim=128,
        memory_dim=32,
        memory_pool=2,  # making memories and attending to them is over half of a frame without it
        attention_layers=2,
        attention_mlp=512,
        decoder_mlp=512,
        mask_stride=2,  # at 256 pixels a small mask has too few cells of stride 4 to judge it by
        clicks_in_turn=True,  # as it was trained
        semantic_heads=4,
    ),
    "tiny": ModelConfig(name="tiny"),
    "small": ModelConfig(name="small", stages=(1, 2, 11, 2), global_blocks=(7, 10, 13)),
    "base_plus": ModelConfig(
        name="base_plus",
        embed_dim=112,
        num_heads=2,
        stages=(2, 3, 16, 3),
        global_blocks=(12, 16, 20),
        pos_grid=14,
    ),
    "large": ModelConfig(
        name="large",
        embed_dim=144,
        num_heads=2,
        stages=(2, 6, 36, 4),
        global_blocks=(23, 33, 43),
        windows=(8, 4, 16, 8),
    ),
}


@dataclass(frozen=True)
class MemorySettings:
    """How a target's memory bank is filled and read."""

    policy: MemoryPolicyName = "divemem"
    iou_threshold: float = 0.8  # divemem: predicted IoU above which a frame is a candidate
    buffer_size: int = 5  # divemem: candidates gathered before one of them is kept
    max_long: int = 3  # divemem: long-term entries per target, oldest out first
    efp_drop: int = 2  # efp: recent entries left out of attention when the window is full
    # Whether a prompt on a target that is being tracked makes a conditional entry. SAM 2 leaves
    # such a frame in the short-term window, where it is forgotten six frames later.
    corrections_are_conditional: bool = True
    # Whether a frame without the target is written too, marked as empty, as SAM 2 does.
    write_absent: bool = False
    # What spatial memories are kept in. SAM 2 keeps bfloat16, which turns the last bit of a sum
    # into a jump of one part in 256: masks then change with the number of other targets.
    storage: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        if self.policy not in MEMORY_POLICIES:
            near = difflib.get_close_matches(str(self.policy), MEMORY_POLICIES, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise ConfigError(
                f"there is no memory policy '{self.policy}'.{hint} "
                f"Policies: {', '.join(MEMORY_POLICIES)}"
            )
        if not 0.0 <= self.iou_threshold <= 1.0:
            raise ConfigError(f"iou_threshold is {self.iou_threshold}; it must lie in 0..1")
        for name in ("buffer_size", "max_long"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.storage not in ("float32", "bfloat16"):
            raise ConfigError(f"storage is {self.storage!r}; it must be 'float32' or 'bfloat16'")
        if self.efp_drop < 0:
            raise ConfigError(f"efp_drop is {self.efp_drop}; it must not be negative")

    @staticmethod
    def for_policy(policy: str) -> MemorySettings:
        """Give a policy's defaults; `sam2` treats corrections and numbers as SAM 2 does."""
        return MemorySettings(
            policy=policy,  # type: ignore[arg-type]  # checked in __post_init__
            corrections_are_conditional=policy != "sam2",
            storage="bfloat16" if policy == "sam2" else "float32",
        )


@dataclass(frozen=True)
class TrackSettings:
    """When a target counts as tracked, occluded or lost, and how its class is smoothed."""

    presence_low: float = 0.5  # below this presence the target is absent from the frame
    presence_high: float = 0.6  # an absent target is back once its presence reaches this ...
    iou_low: float = 0.2  # below this predicted IoU a mask is not to be trusted
    iou_high: float = 0.4  # ... and its predicted IoU this
    lost_after: int = 50  # occluded frames after which a target is lost (2 s at 25 Hz)
    label_momentum: float = 0.9  # share of the past in a target's smoothed class scores
    label_threshold: float = 0.5  # smoothed probability under which the class is `unknown`
    # Whether a pixel belongs to one target at most, in masks and in memory. SAM 2 tracks each
    # target as if it were alone; a mask that goes over to another target then stays there.
    exclusive: bool = False

    def __post_init__(self) -> None:
        for low, high in (("presence_low", "presence_high"), ("iou_low", "iou_high")):
            below, above = getattr(self, low), getattr(self, high)
            if not 0.0 <= below <= above <= 1.0:
                raise ConfigError(f"0 <= {low} <= {high} <= 1 must hold, not {below} and {above}")
        if self.lost_after < 1:
            raise ConfigError(f"lost_after is {self.lost_after}; it must be at least 1 frame")
        if not 0.0 <= self.label_momentum < 1.0:
            raise ConfigError(f"label_momentum is {self.label_momentum}; it must lie in [0, 1)")
        if not 0.0 <= self.label_threshold <= 1.0:
            raise ConfigError(f"label_threshold is {self.label_threshold}; it must lie in 0..1")
