"""Checks of backbones: pixels to tokens, of the sizes that the declaration promised."""

import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dinomx_core.declare.facts import BackboneShape
from dinomx_core.declare.values import Chosen
from dinomx_core.errors import OtherChannels
from dinomx_core.testing.findings import Skip, check
from dinomx_core.testing.runs import COARSE, NEAR, opened_by_transformers, scrambled, tensors_in
from dinomx_core.testing.subject import Part, patch_size
from dinomx_core.training.backbone import Backbone
from dinomx_core.training.construct import construct
from dinomx_core.training.flow import Tokens
from dinomx_core.training.huggingface import no_progress_bars

CHANNELS, SIDE, IMAGES = (1, 3, 5), 4, 3  # SIDE: of the images, in patches


def size_of(part: Part) -> int:
    """Side of the images in pixels."""
    return SIDE * patch_size(part.component, part.chosen.options)


def fresh(part: Part, channels: int = 3, seed: int = 0) -> tuple[Backbone, BackboneShape]:
    """The backbone as a run would build it. Skips where its weights are of other channels."""
    size = size_of(part)
    try:
        shape = part.component.shape(part.chosen.options, channels, size)
    except OtherChannels as error:
        raise Skip(f"its weights are of {error.channels} channels") from None
    with scrambled(seed):
        return construct(part.chosen, shape, size), shape


def kept(part: Part) -> tuple[Backbone, BackboneShape]:
    """The same in evaluation mode, built once for all checks that change nothing of it."""
    backbone, shape = part.subject.once((str(part), "backbone"), lambda: fresh(part))
    return backbone.eval(), shape


def images(height: int, width: int, channels: int = 3, seed: int = 1) -> Tensor:
    """Pixels (B, C, H, W)."""
    return torch.randn(IMAGES, channels, height, width, generator=torch.Generator().manual_seed(seed))


def apart(one: Tokens, other: Tokens, **near: Any) -> bool:
    """Whether tokens differ."""
    pairs = zip(tensors_in(one), tensors_in(other), strict=True)
    return any(a.shape != b.shape or not torch.allclose(a, b, **(near or NEAR)) for a, b in pairs)


@check(
    "backbone",
    "parameters",
    "let `shape` work out names and sizes of all: memory, freezing and adapters are planned by them",
)
def parameters(part: Part) -> Iterator[str]:
    """Names, sizes and number of its parameters are those that `shape` declares."""
    backbone, shape = kept(part)
    found = {name: tuple(parameter.shape) for name, parameter in backbone.named_parameters()}
    if (count := sum(p.numel() for p in backbone.parameters())) != shape.parameters:
        yield f"it has {count} parameters, and declares {shape.parameters}"
    declared = dict(shape.tensors)
    if declared:
        for name in sorted(found.keys() ^ declared.keys())[:3]:
            yield f"{name} is {'declared, and not there' if name in declared else 'there, and not declared'}"
        for name in [name for name in found if name in declared and found[name] != declared[name]][:3]:
            yield f"{name} is {found[name]}, and declared as {declared[name]}"
    for what in ("width", "patch_size"):
        if getattr(backbone, what) != getattr(shape, what):
            yield f"`{what}` is {getattr(backbone, what)}, and declared as {getattr(shape, what)}"


@check(
    "backbone",
    "blocks",
    "give each parameter its depth in `layer_of`; freezing, layer decay, sharding and adapters go by it",
)
def blocks(part: Part) -> Iterator[str]:
    """`blocks` are as many as declared, every parameter has a depth, and `layout` and `roles` name parts that are there."""
    backbone, shape = kept(part)
    depth = len(backbone.blocks)
    if depth != shape.depth:
        yield f"it has {depth} blocks, and declares {shape.depth}"
    named = {id(parameter): name for name, parameter in backbone.named_parameters()}
    for number, block in enumerate(backbone.blocks):
        for parameter in block.parameters():
            if (layer := backbone.layer_of(named[id(parameter)])) != number + 1:
                yield f"layer_of({named[id(parameter)]!r}) is {layer}; a parameter of block {number} is of layer {number + 1}"
                break
    for name in named.values():
        layer = backbone.layer_of(name)
        if not 0 <= layer <= depth + 1:
            yield f"layer_of({name!r}) is {layer}, outside of 0 to {depth + 1}"
        if backbone.layout and backbone.layout.layer_of(name, depth) != layer:
            yield f"layer_of({name!r}) is {layer}, by `layout` {backbone.layout.layer_of(name, depth)}"
    if not any(backbone.is_patch_embedding(name) for name in named.values()):
        yield "is_patch_embedding holds for none of its parameters"
    for role, names in backbone.roles.items():
        for name in names:
            if not any(name in dict(block.named_modules()) for block in backbone.blocks):
                yield f'no block has the part "{name}" of the role "{role}"'


@check("backbone", "tokens", "tell class token, registers and patches apart in `finish`, and the grid in `embed`")
def tokens(part: Part) -> Iterator[str]:
    """Of 1, 3 and 5 channels, square and not: tokens of the declared sizes, finite, in float32."""
    for channels in CHANNELS:
        backbone, shape = fresh(part, channels)
        patch = shape.patch_size
        for height, width in ((SIDE * patch, SIDE * patch), (SIDE * patch, 2 * patch)):
            with torch.no_grad():
                found = backbone.eval()(images(height, width, channels))
            where = f"{channels} channels, {height} x {width} px: "
            yield from (where + fault for fault in faults_of(found, shape, (height // patch, width // patch)))


def faults_of(found: Tokens, shape: BackboneShape, grid: tuple[int, int]) -> Iterator[str]:
    """What is wrong with an output's sizes."""
    count, wide = found.patches.shape[1], shape.width
    seen = shape.channels if shape.channel_tokens else found.grid[0]
    if found.grid != (seen, *grid) or count != seen * grid[0] * grid[1]:
        yield f"{count} patches on the grid {found.grid}; expected {seen * grid[0] * grid[1]} on {(seen, *grid)}"
    if (prefix := found.registers.shape[1] + (found.cls is not None)) != shape.prefix:
        yield f"{prefix} tokens before the patches, and {shape.prefix} are declared"
    expected = {
        "patches": (IMAGES, count, wide),
        "registers": (IMAGES, found.registers.shape[1], wide),
        "cls": (IMAGES, wide),
    }
    for name, size in expected.items():
        tensor = getattr(found, name)
        if tensor is None:
            continue
        if tuple(tensor.shape) != size:
            yield f"{name} are {tuple(tensor.shape)}, expected {size}"
        if tensor.dtype != torch.float32:
            yield f"{name} are {tensor.dtype}, expected torch.float32"
        if not bool(torch.isfinite(tensor).all()):
            yield f"{name} are not finite"


@check("backbone", "gradients", "take out what nothing runs through, or let it require no gradient")
def gradients(part: Part) -> Iterator[str]:
    """A gradient reaches every parameter that requires one, the mask token's through a masked image."""
    backbone, shape = fresh(part)
    side = size_of(part)
    masks = [None]
    if shape.masks:
        masks.append(mask_of(shape))
    total: Any = 0.0
    for mask in masks:
        out = backbone.train()(images(side, side), mask, "none" if mask is None else "replace")
        for number, tensor in enumerate(tensors_in(out)):
            weights = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(number))
            total = total + (tensor * weights).sum()
    total.backward()
    without = [name for name, p in backbone.named_parameters() if p.requires_grad and p.grad is None]
    if without:
        yield f"no gradient reaches {len(without)} parameters; the first is {without[0]}"
    for name, parameter in backbone.named_parameters():
        if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
            yield f"the gradient of {name} is not finite"


def mask_of(shape: BackboneShape, count: int = 5) -> Tensor:
    """Which patches are masked (B, N): as many in every image, others in each; of every channel the same where channels have tokens."""
    order = torch.stack(
        [torch.randperm(SIDE * SIDE, generator=torch.Generator().manual_seed(n)) for n in range(IMAGES)]
    )
    mask = torch.zeros(IMAGES, SIDE * SIDE, dtype=torch.bool).scatter_(1, order[:, :count], True)
    return mask.repeat(1, shape.channels if shape.channel_tokens else 1)


@check("backbone", "deterministic", "draw only in training, from torch's generator, and let no image see another")
def deterministic(part: Part) -> Iterator[str]:
    """In evaluation an image has the same tokens every time, whatever is beside it in the batch; building it follows from the seed."""
    backbone, _ = kept(part)
    pixels = images(size_of(part), size_of(part))
    found = []
    for seed in (1, 2):
        with scrambled(seed), torch.no_grad():
            found.append(backbone(pixels))
    if apart(*found, rtol=0, atol=0):
        yield "the same images have other tokens the second time"
    with torch.no_grad():
        alone = backbone(pixels[1:2])
    beside = [tensor[1:2] for tensor in tensors_in(found[0])]
    if any(not torch.allclose(a, b, **NEAR) for a, b in zip(tensors_in(alone), beside)):
        yield "an image has other tokens alone than beside others"
    again, _ = fresh(part)
    one, other = backbone.state_dict(), again.state_dict()
    if changed := [name for name in one if not torch.equal(one[name], other[name])]:
        yield f"built twice from one seed, {len(changed)} tensors differ; the first is {changed[0]}"


@check("backbone", "passes", "let `embed`, `blocks` and `finish` keep nothing between calls")
def passes(part: Part) -> Iterator[str]:
    """A pass that begins in the middle, one that gives more layers, and one that is for class tokens alone agree with the whole."""
    backbone, shape = kept(part)
    pixels = images(size_of(part), size_of(part))
    with torch.no_grad():
        whole = backbone(pixels)
        for done in sorted({0, shape.depth // 2, shape.depth - 1}):
            if apart(whole, backbone(pixels, begun=(backbone(pixels, blocks=done), done))):
                yield f"begun after {done} blocks, the tokens are others"
        several = not shape.convolutions and shape.depth > 1  # the plan refuses it of convolutions
        if several and apart(whole, backbone(pixels, layers=2)[-1]):
            yield "the last of several layers has other tokens"
        summary = backbone(pixels, short=True).summary
    if whole.cls is not None and not torch.allclose(summary, whole.cls, **NEAR):
        yield "asked for class tokens alone (short=True), they are others"


@check(
    "backbone",
    "masks",
    "put the mask token in place of masked patches before positions are added; else declare masks=False",
)
def masks(part: Part) -> Iterator[str]:
    """What lies under a mask is not seen, and dropped patches leave the sequence; where the declaration says that it has masks."""
    backbone, shape = kept(part)
    if not shape.masks and not shape.drops:
        raise Skip("declares that it takes no masks")
    mask, side, patch = mask_of(shape), size_of(part), shape.patch_size
    one, other = images(side, side), images(side, side, seed=2)
    hidden = mask[:, : SIDE * SIDE].view(IMAGES, 1, SIDE, SIDE)
    where = hidden.repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    with torch.no_grad():
        if shape.masks:
            with_mask = backbone(one, mask, "replace")
            if apart(with_mask, backbone(torch.where(where, other, one), mask, "replace")):
                yield "other pixels under the mask change the tokens"
            if not apart(with_mask, backbone(one)):
                yield "a mask changes nothing"
        if shape.drops:
            count, left = mask.shape[1], int((~mask[0]).sum())
            found = backbone(one, mask, "drop").patches.shape[1]
            if found != left:
                yield f"{count - left} of {count} patches are dropped, and {found} are left"


@check("backbone", "bf16", "compute norms and softmax in float32; autocast does where torch's own functions are used")
def bf16(part: Part) -> Iterator[str]:
    """Under bf16 autocast tokens and gradients are finite, and the tokens near those of float32."""
    backbone, _ = fresh(part)
    pixels = images(size_of(part), size_of(part))
    with torch.no_grad():
        exact = backbone.eval()(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        found = backbone(pixels)
    torch.stack([tensor.float().square().sum() for tensor in tensors_in(found)]).sum().backward()
    for a, b in zip(tensors_in(exact), (tensor.detach() for tensor in tensors_in(found))):
        if a.numel() and not float((a - b.float()).abs().mean()) < COARSE * float(a.std().clamp_min(1e-3)):
            yield "the tokens under bf16 are far from those of float32, or not finite"
            break
    if bad := [
        n for n, p in backbone.named_parameters() if p.grad is not None and not bool(torch.isfinite(p.grad).all())
    ]:
        yield f"under bf16 the gradient of {bad[0]} is not finite"


@check(
    "backbone",
    "export",
    "let `options` rebuild the shape without the weights, and `save` write what transformers opens",
)
def export(part: Part) -> Iterator[str]:
    """`save` writes a folder that transformers opens; a backbone rebuilt from `options` loads it and gives the same tokens."""
    backbone, shape = kept(part)
    side = size_of(part)
    rebuilt = again(part, backbone, shape, side)
    with tempfile.TemporaryDirectory() as name, no_progress_bars():
        backbone.save(Path(name))
        opened_by_transformers(Path(name))
        rebuilt.load(Path(name))
    with torch.no_grad():
        one, other = backbone(images(side, side)), rebuilt.eval()(images(side, side))
    if apart(one, other):
        yield "saved and loaded into a backbone that its `options` rebuild, the tokens are others"


def again(part: Part, backbone: Backbone, shape: BackboneShape, side: int) -> Backbone:
    """The backbone rebuilt as an export is, with other numbers in it."""
    component = part.component
    if backbone.component:
        component = part.subject.registry.find("backbone", backbone.component)
    options = copy.deepcopy(backbone.options)
    shape = component.shape(options, shape.channels, side)
    with scrambled(5):
        return construct(Chosen("backbone", component, options), shape, side)
