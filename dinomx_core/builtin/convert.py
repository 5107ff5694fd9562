"""Checkpoints of the reference codes and of timm -> Hugging Face folders."""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from dinomx_core.builtin.families import Hf, hf_shape
from dinomx_core.builtin.hf import build_hf
from dinomx_core.builtin.weights import FILES, HEADS, read_reference
from dinomx_core.errors import ConfigError, DataError, Problem
from dinomx_core.folders import write_folder


def convert(source: Path, out: Path, heads: int) -> dict[str, Any]:
    """See `api.convert`."""
    if not source.is_file() or source.suffix not in FILES:
        raise DataError(f"{source}: is no checkpoint file ({', '.join(FILES)})")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError([Problem(f"{out} holds something already; choose another")])
    try:
        found = read_reference(source, heads)
    except DataError as error:
        raise DataError(str(error) if error.key != "heads" else f"{error} (--heads)") from None
    masks = any(move.theirs == "mask_token" for move in found.moves)
    options = Hf(weights=str(source), heads=heads, mask_token=masks, missing=[] if masks else ["*mask_token"])
    backbone = build_hf(options, hf_shape(options, found.config["num_channels"], 0), 0)
    start = backbone.warm_start()
    assert start is not None, "the options name weights"

    def write(draft: Path) -> None:
        backbone.save(draft)
        if start.heads:
            tensors = {f"{label}.{name}": t for label, head in start.heads.items() for name, t in head.items()}
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, draft / HEADS)

    write_folder(out.absolute(), write)
    return {
        "folder": out,
        "type": found.type,
        "report": start.report,
        "heads": {label: len(head) for label, head in start.heads.items()},
    }
