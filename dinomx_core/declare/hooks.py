"""The hook specifications. A hook only declares; it is called once, alone, when plugins are discovered, so order never matters.

Example, the whole of a plugin's `plugin.py`:

    import attrs
    from dinomx_core import Loss, Request, hookimpl, option

    @attrs.frozen
    class Variance:
        \"\"\"Keep the features of a batch apart.\"\"\"
        margin: float = option(1.0, "standard deviation below which a feature is pushed")

    @hookimpl
    def dinomx_losses():
        yield Loss("variance", Variance, "dinomx_variance.loss:Variance", requests=lambda options: [Request("student", "global")])
"""

from collections.abc import Iterable

import pluggy

from dinomx_core.declare import components as c

PROJECT = "dinomx"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def dinomx_backbones() -> Iterable[c.Backbone]:  # type: ignore[empty-body]
    """Yield backbones, e.g. `yield Backbone("vit", ViT, "dinomx_dinov1.backbone:build", shape=vit_shape)`."""


@hookspec
def dinomx_heads() -> Iterable[c.Head]:  # type: ignore[empty-body]
    """Yield heads, e.g. `yield Head("dino", DinoHead, "dinomx_dinov1.head:DinoHead", shape=head_shape)`."""


@hookspec
def dinomx_targets() -> Iterable[c.Target]:  # type: ignore[empty-body]
    """Yield targets, e.g. `yield Target("centering", Centering, "dinomx_dinov1.target:Centering")`."""


@hookspec
def dinomx_losses() -> Iterable[c.Loss]:  # type: ignore[empty-body]
    """Yield losses, e.g. `yield Loss("dino", Dino, "dinomx_dinov1.loss:DinoLoss", requests=dino_requests)`."""


@hookspec
def dinomx_augmentations() -> Iterable[c.Augmentation]:  # type: ignore[empty-body]
    """Yield augmentations, e.g. `yield Augmentation("multicrop", MultiCrop, "…:MultiCrop", views=…, preprocessing=…)`."""


@hookspec
def dinomx_placements() -> Iterable[c.Placement]:  # type: ignore[empty-body]
    """Yield placements of crops, e.g. `yield Placement("label-guided", Guided, "dinomx_label_guided.placement:Guided")`."""


@hookspec
def dinomx_maskings() -> Iterable[c.Masking]:  # type: ignore[empty-body]
    """Yield maskings, e.g. `yield Masking("blocks", Blocks, "dinomx_dinov2.masks:BlockMasks", view=lambda options: options.view)`."""


@hookspec
def dinomx_strategies() -> Iterable[c.Strategy]:  # type: ignore[empty-body]
    """Yield strategies, e.g. `yield Strategy("ema", Ema, "dinomx_core.builtin.ema:EmaTeacher")`."""


@hookspec
def dinomx_parallelisms() -> Iterable[c.Parallelism]:  # type: ignore[empty-body]
    """Yield parallelisms, e.g. `yield Parallelism("ddp", Ddp, "dinomx_core.builtin.ddp:DataParallel", divide=divide_ddp)`."""


@hookspec
def dinomx_datasets() -> Iterable[c.Dataset]:  # type: ignore[empty-body]
    """Yield data sets, e.g. `yield Dataset("digits", Digits, "dinomx_core.builtin.digits:DigitsData", inspect=count_digits)`."""


@hookspec
def dinomx_readers() -> Iterable[c.Reader]:  # type: ignore[empty-body]
    """Yield readers of image files, e.g. `yield Reader("nifti", Nifti, "…:NiftiReader", suffixes=(".nii", ".nii.gz"), index=…)`."""


@hookspec
def dinomx_intensities() -> Iterable[c.Intensity]:  # type: ignore[empty-body]
    """Yield intensities, e.g. `yield Intensity("window", Window, "dinomx_medical_multichannel.intensity:WindowIntensity")`."""


@hookspec
def dinomx_evaluators() -> Iterable[c.Evaluator]:  # type: ignore[empty-body]
    """Yield evaluators, e.g. `yield Evaluator("knn", Knn, "dinomx_core.builtin.evaluators.knn:KnnEvaluator")`."""


@hookspec
def dinomx_trackers() -> Iterable[c.Tracker]:  # type: ignore[empty-body]
    """Yield trackers, e.g. `yield Tracker("wandb", Wandb, "dinomx_core.builtin.trackers.wandb:WandbTracker", check=check_wandb)`."""


@hookspec
def dinomx_recipes() -> Iterable[c.Recipe]:  # type: ignore[empty-body]
    """Yield recipes, e.g. `yield Recipe("dinov1", "dinomx_dinov1:recipes/dinov1.toml", "the paper's ViT-S/16")`."""


@hookspec
def dinomx_commands() -> Iterable[c.Command]:  # type: ignore[empty-body]
    """Yield commands, e.g. `yield Command("explain", "dinomx_interpret.command:explain", "Draw what a model sees in images.")`."""


HOOKS = {kind.kind: f"dinomx_{name}" for kind, name in zip(  # type: ignore[attr-defined]
    c.KINDS,
    ("backbones", "heads", "targets", "losses", "augmentations", "placements", "maskings", "strategies", "parallelisms", "datasets",
     "readers", "intensities", "evaluators", "trackers", "recipes", "commands"),
)}  # fmt: skip
