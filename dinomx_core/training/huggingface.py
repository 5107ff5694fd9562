"""Backbones on transformers' vision models: one adapter a token layout, found by the model's own parts."""

import copy
import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import logging

from dinomx_core.declare.layout import CLIP, DINOV2, DINOV3, VIT, Layout
from dinomx_core.errors import DataError
from dinomx_core.training import attention
from dinomx_core.training.backbone import Backbone, Start
from dinomx_core.training.branches import BranchLayer, DropPath, offset_positions
from dinomx_core.training.flow import Hidden, Tokens, drop_masked

SHOWN = 4  # names of tensors in a message


class HuggingFaceBackbone(Backbone):
    """Class token, further tokens, patches, with a learnt position table: ViT, DeiT and I-JEPA. Sub-classes say what differs.

    model: built without pooler. prefix: tokens before the patches; all but the class token are given as registers.
    arguments: what the model's class takes beside its config.
    """

    layout: Layout = VIT
    norm_path: ClassVar[str] = "layernorm"  # "": the model's last_hidden_state is not normed, so neither are the tokens
    drop_path_at: ClassVar[str] = "dropout"  # stands on both branches, right before they are added

    def __init__(self, model: PreTrainedModel, cls: bool, prefix: int, arguments: Mapping[str, Any]):
        super().__init__()
        self.model, self.has_cls, self.prefix, self.arguments = model, cls, prefix, arguments
        self.start: Callable[[], Start] | None = None
        self.width, self.patch_size = model.config.hidden_size, model.config.patch_size
        model.config._attn_implementation = attention.NAME
        inside = dict(self.blocks[0].named_modules())
        found = {role: tuple(n for n in names if n in inside) for role, names in self.layout.roles.items()}
        self.roles = {role: names for role, names in found.items() if names}

    def drop_path(self, probabilities: Sequence[float]) -> None:
        """Give each block its probability."""
        for block, probability in zip(self.blocks, probabilities):
            setattr(block, self.drop_path_at, DropPath(probability))

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The model's own blocks."""
        return self.get_submodule(self.layout.blocks)

    def grid(self, pixels: Tensor) -> tuple[int, int, int]:
        """(1, rows, columns) of patches."""
        return 1, pixels.shape[-2] // self.patch_size, pixels.shape[-1] // self.patch_size

    def embed(self, pixels: Tensor, mask: Tensor | None = None) -> Hidden:
        """The model's own embeddings, with positions interpolated to the grid of the input."""
        x = self.model.embeddings(pixels, bool_masked_pos=mask, interpolate_pos_encoding=True)
        return Hidden(x, self.prefix, self.grid(pixels))

    def finish(self, hidden: Hidden) -> Tokens:
        """What the model's last_hidden_state is, in parts."""
        x = self.model.get_submodule(self.norm_path)(hidden.x) if self.norm_path else hidden.x
        cls = x[:, 0] if self.has_cls else None
        return Tokens(cls, x[:, int(self.has_cls) : self.prefix], x[:, self.prefix :], hidden.grid)

    def layer_of(self, name: str) -> int:
        """By the path of the blocks and the names before them."""
        return self.layout.layer_of(name, len(self.blocks))

    def is_patch_embedding(self, name: str) -> bool:
        """The projection's weight and bias."""
        return ".patch_embedding" in name

    def save(self, folder: Path) -> None:
        """A folder of the model's class."""
        with no_progress_bars():
            self.model.save_pretrained(folder)

    def warm_start(self) -> Start | None:
        """What `start`, set by the builder, loads."""
        return self.start() if self.start else None

    def load(self, folder: Path) -> None:
        """Weights of such a folder; raises DataError unless every tensor is there, fits, and none is left over."""
        self.take(folder)

    def take(self, folder: Path, missing: Sequence[str] = (), channels: int | None = None) -> str:
        """Weights of a folder, with tensors it may lack as patterns; `channels` of its patch projection where it has others
        than the model. Returns what to say of it; raises DataError naming what does not fit."""
        config = copy.deepcopy(self.model.config)
        if channels is not None:
            config.num_channels = channels
        try:
            with no_progress_bars():
                loaded, report = type(self.model).from_pretrained(
                    folder, config=config, local_files_only=True, dtype=torch.float32, output_loading_info=True,
                    ignore_mismatched_sizes=True, **self.arguments,
                )  # fmt: skip
        except Exception as error:  # the library raises whatever it stumbles over
            raise DataError(
                f"{folder}: cannot be loaded: {str(error).strip().partition(chr(10))[0]}", "weights"
            ) from None
        fresh = {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}
        theirs = {name: tensor for name, tensor in loaded.state_dict().items() if name not in fresh}
        return self.take_tensors(theirs, report["unexpected_keys"], folder, missing)

    def take_tensors(
        self, theirs: dict[str, Tensor], unused: Sequence[str], where: Path, missing: Sequence[str] = ()
    ) -> str:
        """Tensors by the model's own names, those that have no place in it, and where they come from. See `take`."""
        ours = self.model.state_dict()
        (projection,) = (name for name in ours if self.is_patch_embedding(f"model.{name}") and ours[name].ndim == 4)
        if projection in theirs and theirs[projection].shape[1] != ours[projection].shape[1]:
            self.spread_channels(theirs, projection)
        theirs = {**{name: tensor for name, tensor in ours.items() if not tensor.numel()}, **theirs}  # no registers
        fit = {name for name in ours if name in theirs and theirs[name].shape == ours[name].shape}
        allowed = {name for name in set(ours) - fit if any(fnmatch.fnmatchcase(name, pattern) for pattern in missing)}
        inside = {name.partition(".")[0] for name in ours}
        left = sorted(name for name in {*theirs, *unused} - set(ours))
        extra = [name for name in left if name.partition(".")[0] in inside and not name.endswith("mask_token")]
        if faults := sorted(set(ours) - fit - allowed) + extra:
            more = f" and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
            raise DataError(
                f"{where}: {len(fit)}/{len(ours)} tensors fit the backbone; not so {', '.join(faults[:SHOWN])}{more}",
                "weights",
            )
        self.model.load_state_dict({name: theirs[name] for name in fit}, strict=False)
        text = f"{len(fit)}/{len(ours)} tensors loaded"
        if allowed:
            text += f"; fresh, as `missing` allows: {', '.join(sorted(allowed))}"
        if left:
            parts = sorted({name.rpartition(".")[0].partition(".")[0] or name for name in left})
            text += f"; {len(left)} of its tensors are not used ({', '.join(parts[:SHOWN])})"
        return text

    def spread_channels(self, state: dict[str, Tensor], name: str) -> None:
        """Give every channel of the model the mean of the weights' channels, scaled so that equal channels embed as before."""
        weight, channels = state[name], self.model.config.num_channels
        state[name] = (weight.mean(1, keepdim=True) * (weight.shape[1] / channels)).repeat(1, channels, 1, 1)


class BeitBackbone(HuggingFaceBackbone):
    """Class token and patches, with relative position biases that are added to the attention."""

    drop_path_at = "drop_path"

    def __init__(self, model: PreTrainedModel, cls: bool, prefix: int, arguments: Mapping[str, Any]):
        super().__init__(model, cls, prefix, arguments)
        self.norm_path = "" if model.config.use_mean_pooling else "layernorm"  # type: ignore[misc]

    def embed(self, pixels: Tensor, mask: Tensor | None = None) -> Hidden:
        """The biases depend on the input's size."""
        x = self.model.embeddings(pixels, bool_masked_pos=mask)
        context: dict[str, Any] = {"resolution": pixels.shape[-2:], "attention_mask": None}
        if self.model.shared_position_bias is not None:
            _, height, width = self.grid(pixels)
            context["attention_mask"] = self.model.shared_position_bias((height, width))
        return Hidden(x, self.prefix, self.grid(pixels), context)


class Dinov2Backbone(HuggingFaceBackbone):
    """Class token, registers that have no position, patches: DINOv2 with and without registers."""

    layout = DINOV2
    drop_path_at = "drop_path"

    can_shorten = True
    layers: ClassVar[dict[type, type]] = {}
    offset_positions = False

    def __init__(self, model: PreTrainedModel, cls: bool, prefix: int, arguments: Mapping[str, Any]):
        super().__init__(model, cls, prefix, arguments)
        for block in self.blocks:
            kind = type(block)
            if kind not in self.layers:
                self.layers[kind] = type(kind.__name__, (BranchLayer, kind), {})
            block.__class__ = self.layers[kind]

    def embed(self, pixels: Tensor, mask: Tensor | None = None) -> Hidden:
        """Positions are always interpolated."""
        grid = self.grid(pixels)
        if not self.offset_positions:
            return Hidden(self.model.embeddings(pixels, bool_masked_pos=mask), self.prefix, grid)
        parts = self.model.embeddings
        patches = parts.patch_embeddings(pixels)
        if mask is not None:
            patches = torch.where(mask.unsqueeze(-1), parts.mask_token.to(patches.dtype), patches)
        x = torch.cat([parts.cls_token.expand(len(patches), -1, -1).to(patches.dtype), patches], 1)
        x = x + offset_positions(parts.position_embeddings, *grid[1:])
        if self.prefix > 1:
            x = torch.cat([x[:, :1], parts.register_tokens.expand(len(x), -1, -1), x[:, 1:]], 1)
        return Hidden(x, self.prefix, grid)


class Dinov3Backbone(Dinov2Backbone):
    """Class token, registers, patches; rotary positions on the patches of every block."""

    layout = DINOV3
    norm_path = "norm"

    def __init__(self, model: PreTrainedModel, cls: bool, prefix: int, arguments: Mapping[str, Any]):
        super().__init__(model, cls, prefix, arguments)
        c = model.config
        self.random_embedding = any((c.pos_embed_shift, c.pos_embed_jitter, c.pos_embed_rescale))

    def embed(self, pixels: Tensor, mask: Tensor | None = None) -> Hidden:
        """Cosines and sines (N, d) go to every block; in training their coordinates are jittered as the config says."""
        hidden = Hidden(self.model.embeddings(pixels, bool_masked_pos=mask), self.prefix, self.grid(pixels))
        hidden.context = {"position_embeddings": self.model.rope_embeddings(pixels)}
        return hidden

    def drop(self, hidden: Hidden, mask: Tensor) -> Hidden:
        """Each image keeps the angles of its own patches: (B, 1, kept, d)."""
        dropped = drop_masked(hidden, mask)
        angles = (
            a.expand(len(mask), -1, -1)[~mask].view(len(mask), 1, -1, a.shape[-1])
            for a in hidden.context["position_embeddings"]
        )
        dropped.context = {"position_embeddings": tuple(angles)}
        return dropped


class ClipBackbone(HuggingFaceBackbone):
    """The vision towers of CLIP and SigLIP, which have no mask token of their own: one is added where it is asked for.

    CLIP norms only its pooled output, so its tokens are those of last_hidden_state, without a norm.
    """

    layout = CLIP

    def __init__(self, model: PreTrainedModel, cls: bool, prefix: int, arguments: Mapping[str, Any]):
        super().__init__(model, cls, prefix, arguments)
        self.norm_path = "" if cls else "post_layernorm"  # type: ignore[misc]
        if cls:
            model.post_layernorm.requires_grad_(False)  # nothing here runs through it
        self.mask_token: nn.Parameter | None = None

    def add_mask_token(self) -> None:
        """A learnt token for masked patches; it is part of checkpoints, not of the exported folder."""
        self.mask_token = nn.Parameter(torch.zeros(1, 1, self.width))

    def embed(self, pixels: Tensor, mask: Tensor | None = None) -> Hidden:
        """Patches, mask token, class token, positions; CLIP norms before the first block too."""
        parts = self.model.embeddings
        x = parts.patch_embedding(pixels).flatten(2).transpose(1, 2)
        if mask is not None:
            assert self.mask_token is not None, "the plan lets no masks through without a mask token"
            x = torch.where(mask.unsqueeze(-1), self.mask_token.to(x.dtype), x)
        if self.has_cls:
            x = torch.cat([parts.class_embedding.expand(x.shape[0], 1, -1).to(x.dtype), x], 1)
        x = x + parts.interpolate_pos_encoding(x, *pixels.shape[-2:])
        x = self.model.pre_layrnorm(x) if self.has_cls else x
        return Hidden(x, self.prefix, self.grid(pixels), {"attention_mask": None})


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """transformers shows bars for the quickest of loads and saves, and a table of what did not fit; we say it in words."""
    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
