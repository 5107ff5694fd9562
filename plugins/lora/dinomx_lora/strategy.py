"""LoRA through peft."""

from pathlib import Path

import peft
from peft.tuners.lora import Linear, LoraLayer
from safetensors.torch import save_file
from torch import nn

from dinomx_core import PluginError
from dinomx_core.training.backbone import Backbone
from dinomx_core.training.contracts import Strategy
from dinomx_core.training.huggingface import HuggingFaceBackbone
from dinomx_lora import plugin
from dinomx_lora.fused import FusedLinear, NamedNorm

ADAPTER = "adapter"


class LoraStrategy(Strategy):
    """Adapters on the backbone that student and teacher each have of their own; the rest they share."""

    def __init__(self, options: "plugin.Lora"):
        self.options = options

    def adapt(self, backbone: Backbone) -> None:
        """Put adapters in that change nothing at first, and freeze everything else but the blocks that train whole."""
        if backbone.layout is None:
            raise PluginError(f"lora: {type(backbone).__name__} does not tell where its parts are (Backbone.layout)")
        shapes = {name: tuple(parameter.shape) for name, parameter in backbone.named_parameters()}
        names = plugin.targets(self.options, backbone.layout, len(backbone.blocks), shapes)
        peft.inject_adapter_in_model(self.config(names), backbone)
        for layer in layers_of(backbone).values():
            if type(layer) is Linear and not (self.options.dropout or self.options.dora):
                layer.__class__ = FusedLinear
        for norm in (module for block in backbone.blocks for module in block.modules() if type(module) is nn.LayerNorm):
            norm.__class__ = NamedNorm
        for number in plugin.blocks_of(self.options, len(backbone.blocks)):
            backbone.blocks[number].requires_grad_(True)

    def config(self, names: list[str], whole: list[str] | None = None) -> peft.LoraConfig:
        """peft's config for adapters on the modules of these names; `whole`: modules that are saved beside them."""
        o = self.options
        return peft.LoraConfig(
            r=o.rank, lora_alpha=o.alpha, lora_dropout=o.dropout, target_modules=names, use_rslora=o.rslora, use_dora=o.dora,
            modules_to_save=whole,
        )  # fmt: skip

    def merge(self, backbone: Backbone) -> None:
        """Every adapter goes into the weight beside it."""
        for name, layer in layers_of(backbone).items():
            layer.merge()
            backbone.set_submodule(name, layer.get_base_layer())
        for module in backbone.modules():
            if type(module) is NamedNorm:
                module.__class__ = nn.LayerNorm

    def export(self, backbone: Backbone, folder: Path) -> None:
        """`adapter/`, which `peft.PeftModel.from_pretrained` puts on the model that the run started from."""
        root = "model." if isinstance(backbone, HuggingFaceBackbone) else ""
        full = plugin.blocks_of(self.options, len(backbone.blocks))
        assert backbone.layout
        blocks = [f"{backbone.layout.blocks}.{number}" for number in sorted(full)]
        tensors = {
            name: parameter
            for name, parameter in backbone.named_parameters()
            if ".lora_" in name or name.startswith(tuple(f"{block}." for block in blocks))
        }
        bare = lambda name: name.removeprefix(root)  # noqa: E731
        config = self.config([bare(n) for n in layers_of(backbone)], [bare(b) for b in blocks] or None)
        config.inference_mode = True
        config.save_pretrained(str(folder / ADAPTER))
        saved = {
            f"base_model.model.{bare(saved_name(name))}": t.detach().cpu().contiguous() for name, t in tensors.items()
        }
        save_file(saved, folder / ADAPTER / "adapter_model.safetensors")


def layers_of(backbone: Backbone) -> dict[str, LoraLayer]:
    """Layers with an adapter, by name."""
    return {name: module for name, module in backbone.named_modules() if isinstance(module, LoraLayer)}


def saved_name(name: str) -> str:
    """A parameter's name as peft has it in files: without the adapter's own name."""
    return name.replace(".lora_magnitude_vector.default.weight", ".lora_magnitude_vector").replace(".default.", ".")
