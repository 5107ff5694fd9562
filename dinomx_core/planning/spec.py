"""The attrs classes of a config. `convert` fills them; field docs go into the generated reference."""

from typing import Any, Literal

import attrs

from dinomx_core.declare.components import more_than_none
from dinomx_core.declare.values import (
    Chosen,
    Length,
    Schedule,
    as_length,
    as_schedule,
    fraction,
    not_negative,
    option,
    positive,
    schedule_of,
)

Precision = Literal["float32", "bf16", "fp16", "float64"]


def named(instance: Any, attribute: Any, value: str) -> None:
    """attrs validator: a name that can be a folder."""
    if not value.isprintable() or not 0 < len(value.encode()) <= 200 or set("/\\") & set(value) or value in (".", ".."):
        raise ValueError(f"must be a plain folder name, got {value!r}")


def two_factors(instance: Any, attribute: Any, value: list[float]) -> None:
    """attrs validator: two averaging factors."""
    if len(value) != 2 or not all(0 <= factor < 1 for factor in value):
        raise ValueError(f"must be two numbers of 0 or more and less than 1, got {value}")


def whole_run(instance: Any, attribute: Any, value: Length) -> None:
    """attrs validator: a length that can be the run's own."""
    if value.unit == "%" or value.amount <= 0:
        raise ValueError(f'must be steps (20000) or passes over the data ("100 passes"), more than none, got "{value}"')


@attrs.frozen
class RunOptions:
    """The run as a whole."""

    steps: Length = attrs.field(
        converter=as_length,
        validator=whole_run,
        metadata={"doc": 'optimisation steps, or "100 passes" over the data'},
    )
    batch_size: int = option(doc="images a step, over all ranks and accumulation", check=positive)
    name: str = option("run", "folder of the run below `out` (default: the config file's name)", check=named)
    out: str = option("runs", "folder that holds run folders")
    start: str = option("", 'run or checkpoint whose student, teacher and heads this run starts from; "": none')
    accumulation: int = option(1, "forward and backward passes (micro-batches) a step", check=positive)
    precision: Precision = option(
        "float32", "number type of matrix work; weights stay float32, but for float64, which is for comparisons"
    )
    seed: int = option(0, "every random draw follows from it", check=not_negative)
    device: Literal["auto", "cpu", "cuda", "mps"] = option("auto", "where to train; auto: a GPU if there is one")
    recompute: Literal["none", "mlp", "blocks"] = option(
        "none",
        "what is computed again in the backward pass, for less memory and more time: the blocks, or only their MLPs",
    )
    recompute_every: int = option(1, "so in every n-th block", check=positive)
    frozen_weights: Literal["float32", "bf16"] = option(
        "float32",
        "number type in which linear layers that never train are kept, of the backbone and of further networks; bf16 needs "
        'precision = "bf16", under which they compute the same',
    )
    threads: int = option(0, "CPU threads of a process; 0: as many as there are cores", check=not_negative)
    max_hours: float = option(0.0, "save and leave after so many hours of one process; 0: no limit", check=not_negative)


@attrs.frozen
class LoaderOptions:
    """How training images reach the loop. None of it changes what is computed but `shuffle`."""

    workers: int = option(1, "processes that read and augment; 0: the training process itself", check=not_negative)
    prefetch: int = option(2, "batches that each worker prepares ahead", check=positive)
    shuffle: bool = option(True, "a new random order every pass; false: always the data set's own order")
    max_unreadable: float = option(
        0.01,
        "largest share of the images that may turn out unreadable; each is replaced by the next one",
        check=fraction,
    )


ClipScope = Literal["tensor", "network", "global"]


@attrs.frozen
class OptimizerOptions:
    """AdamW, its schedules and its parameter groups."""

    lr: Schedule = attrs.field(
        converter=as_schedule,
        validator=schedule_of(not_negative),
        metadata={"doc": "learning rate; its peak is scaled by `scaling`"},
    )
    weight_decay: Schedule = option(
        Schedule.constant(0.04), "decoupled decay; none on biases and 1-D parameters", check=schedule_of(not_negative)
    )
    scaling: Literal["none", "linear", "sqrt"] = option(
        "none", "how the lr's peak grows with batch_size / scaling_batch"
    )
    scaling_batch: int = option(256, "batch size that the lr was given for", check=positive)
    betas: list[float] = option([0.9, 0.999], "AdamW's two averaging factors", check=two_factors)
    eps: float = option(1e-8, "AdamW's epsilon", check=positive)
    clip: float = option(0.0, "largest gradient norm; 0: no clipping", check=not_negative)
    clip_scope: ClipScope = option(
        "global",
        "what one norm covers: a tensor (DINO), a network, i.e. the backbone or one head (DINOv2, DINOv3), or all",
    )
    backbone_lr: Schedule = option(
        Schedule.constant(1.0),
        "lr factor of the backbone: a warm-up from 0 lets fresh heads settle before it moves",
        check=schedule_of(not_negative),
    )
    layer_decay: float = option(1.0, "lr factor from a block to the one below it", check=fraction)
    patch_embed_lr: float = option(1.0, "lr factor of the patch projection", check=not_negative)
    freeze_last_layer: Length = option(Length(0), "stretch in which the heads' last layer does not change")
    freeze_last_layer_by: Literal["gradient", "lr"] = option(
        "gradient", "gradient: dropped after clipping (DINO); lr: set to 0, moments still move (DINOv2, DINOv3)"
    )


@attrs.frozen
class LogOptions:
    """What is shown while training."""

    every: Length = option(
        Length(10), "stretch between two plain progress lines (a terminal is always live)", check=more_than_none
    )


@attrs.frozen
class CheckpointOptions:
    """What is kept of a run, and how often. The end of a run is always saved."""

    every: Length = option(Length(10, "%"), "stretch between two checkpoints", check=more_than_none)
    keep_last: int = option(2, "newest checkpoints that stay", check=positive)
    keep_every: Length = option(Length(0), "checkpoints at multiples of this stay for good; 0: none does")
    keep_best: str = option(
        "",
        'figure of an evaluation ("knn/accuracy@20") whose best teacher backbone stays in checkpoints/best; "": none',
    )


@attrs.frozen
class HealthOptions:
    """Whether the run learns: figures about teacher and features, and verdicts in words."""

    every: Length = option(
        Length(1, "%"), "stretch between two looks at the features' spread and rank", check=more_than_none
    )
    stop: bool = option(False, "end the run at a verdict of collapse or divergence, instead of only telling it")


@attrs.frozen
class ReportOptions:
    """What a run tells of itself in `report.html`, beside its rows."""

    enabled: bool = option(True, "write the report during the run and after it")
    images: bool = option(
        True, "show images, their crops and maps of them; false: no pixel of any image; `dinomx data` obeys it, too"
    )
    hash_ids: bool = option(
        False, "hashes in place of names of files, groups and classes, in trackers and `dinomx data`, too"
    )
    count: int = option(4, "images that are shown, the same ones at every look", check=positive)
    every: Length = option(
        Length(10, "%"),
        "stretch between two looks at them; the start and the end are always looked at",
        check=more_than_none,
    )


@attrs.frozen
class RunSpec:
    """A whole config, every component picked and every option typed."""

    run: RunOptions
    data: Chosen
    intensity: Chosen
    backbone: Chosen
    augmentation: Chosen
    masking: Chosen | None
    optimizer: OptimizerOptions
    losses: dict[str, Chosen]
    heads: dict[str, Chosen]
    strategies: dict[str, Chosen]
    teacher: Chosen
    parallelism: Chosen
    evaluate: dict[str, Chosen]
    loader: LoaderOptions
    log: LogOptions
    checkpoint: CheckpointOptions
    health: HealthOptions
    report: ReportOptions
    tracker: dict[str, Chosen]


SECTIONS = {
    "run": RunOptions,
    "loader": LoaderOptions,
    "optimizer": OptimizerOptions,
    "log": LogOptions,
    "checkpoint": CheckpointOptions,
    "health": HealthOptions,
    "report": ReportOptions,
}
SLOTS = {  # table -> (kind, component when the table is left out; None: it must be there; "": there is none then)
    "data": ("dataset", None),
    "intensity": ("intensity", "full-range"),
    "backbone": ("backbone", None),
    "augmentation": ("augmentation", None),
    "masking": ("masking", ""),
    "teacher": ("strategy", "ema"),
    "parallelism": ("parallelism", "single"),
}
LABELLED = {  # table of tables -> (kind, key listing the active ones in order, or None)
    "loss": ("loss", "losses"),
    "head": ("head", None),
    "strategy": ("strategy", "strategies"),
    "evaluate": ("evaluator", None),
    "tracker": ("tracker", None),
}
