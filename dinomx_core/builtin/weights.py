"""Folders of Hugging Face weights, looked at without torch: where they are, what they say, whether they are whole."""

import json
import os
import struct
from pathlib import Path
from typing import Any

from dinomx_core.builtin.pickles import Shape, read_shapes
from dinomx_core.builtin.reference import Reference, head_shape, network_of, understand
from dinomx_core.declare.facts import HeadShape
from dinomx_core.errors import DataError, OtherChannels

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
HEADS = "heads.safetensors"  # of a converted checkpoint, named "label.tensor"
FILES = (".pth", ".pt", ".bin", ".safetensors")  # checkpoints of reference codes and timm
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
NEEDED = [CONFIG, "*.safetensors", INDEX, "preprocessor_config.json", "README.md"]
LONGEST_HEADER = 100 << 20  # bytes; the format's own limit


def find_weights(weights: str, revision: str, only_config: bool = False) -> Path:
    """What `weights` names: a folder, a file of a reference code, or a model id ("owner/name") that the hub's cache or the hub
    itself has.

    `only_config` leaves the tensors where they are. Raises DataError (key "weights") when there is no such folder or model.
    """
    folder = Path(os.path.expanduser(weights))
    if folder.is_dir():
        return folder.absolute()
    if folder.is_file():
        if folder.suffix in FILES:
            return folder.absolute()
        raise DataError(
            f'"{weights}" is neither a checkpoint ({", ".join(FILES)}) nor a folder with config.json and model.safetensors',
            "weights",
        )
    looked = f'there is no folder or file "{weights}" (looked in {Path.cwd()})'
    if weights.startswith((".", "/", "~")) or weights.count("/") != 1:
        raise DataError(looked, "weights")
    from huggingface_hub import constants, snapshot_download

    patterns = [CONFIG, "preprocessor_config.json", "README.md"] if only_config else NEEDED
    try:
        return Path(snapshot_download(weights, revision=revision or None, allow_patterns=patterns))
    except Exception as error:  # the hub's client raises errors of many kinds: offline, unknown, gated
        offline = " (offline: HF_HUB_OFFLINE is set)" if constants.HF_HUB_OFFLINE else ""
        first = str(error).strip().partition("\n")[0]
        raise DataError(f"{looked} and no such model in the cache or on the hub{offline}: {first}", "weights") from None


def read_json(file: Path) -> dict[str, Any]:
    """A JSON table. Raises DataError (key "weights") when it is missing or is none."""
    try:
        value = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise DataError(f"{file.parent}: there is no {file.name}", "weights") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{file}: cannot be read: {error}", "weights") from None
    if not isinstance(value, dict):
        raise DataError(f"{file}: is not a JSON table", "weights")
    return value


def safetensors_header(file: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a file's tensors. Raises DataError (key "weights") when the file is not whole."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = struct.unpack("<Q", stream.read(8))[0]
            if length > min(size, LONGEST_HEADER):
                raise ValueError("the header runs over the end of the file")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
        if end != size:
            raise ValueError(f"{size} bytes where the header announces {end}")
        return {name: tuple(entry["shape"]) for name, entry in header.items()}
    except FileNotFoundError:
        raise DataError(f"{file}: is missing; fetch or copy it again", "weights") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise DataError(f"{file}: not a whole safetensors file ({error}); fetch or copy it again", "weights") from None


def tensors_of_folder(folder: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors of a model folder. Raises DataError (key "weights") when they are missing or not whole."""
    if (folder / WEIGHTS).is_file():
        return safetensors_header(folder / WEIGHTS)
    if (folder / INDEX).is_file():
        listed = read_json(folder / INDEX).get("weight_map")
        if not isinstance(listed, dict) or not all(isinstance(shard, str) for shard in listed.values()):
            raise DataError(
                f"{folder / INDEX}: has no weight_map of tensors to files; fetch or copy it again", "weights"
            )
        shards = sorted(set(listed.values()))
        return {name: shape for shard in shards for name, shape in safetensors_header(folder / shard).items()}
    if pickles := [name for name in PICKLES if (folder / name).exists()]:
        raise DataError(
            f"{folder}: has only {pickles[0]}, a pickle, which can run code when it is read; save it as model.safetensors first",
            "weights",
        )
    raise DataError(f"{folder}: has no weights ({WEIGHTS} or {INDEX})", "weights")


def check_channels(where: Path, theirs: int, ours: int, other: str) -> None:
    """Weights made for as many channels as the data have, unless `other` is "average". Raises OtherChannels (key "weights")."""
    if theirs != ours and other == "refuse":
        raise OtherChannels(
            f'{where}: made for {theirs} channels, the data have {ours}; set other_channels = "average" or read the data with as '
            "many channels",
            "weights",
            theirs,
        )


def read_reference(file: Path, heads: int) -> Reference:
    """What is in a checkpoint of a reference code; `heads` as in `understand`. Raises DataError (key "weights" or "heads")."""
    try:
        if file.suffix == ".safetensors":
            shapes = network_of(safetensors_header(file), lambda value: isinstance(value, tuple))
        else:
            found = network_of(read_shapes(file), lambda value: isinstance(value, Shape))
            shapes = {name: tensor.shape for name, tensor in found.items()}
        return understand(shapes, heads)
    except DataError as error:
        raise type(error)(f"{file}: {str(error).removeprefix(f'{file}: ')}", error.key) from None
    except (ArithmeticError, LookupError, ValueError, TypeError, StopIteration) as error:
        message = f"{file}: its tensors have shapes that no known model has ({type(error).__name__}: {error})"
        raise DataError(message, "weights") from None


def heads_beside(folder: Path) -> dict[str, HeadShape]:
    """Sizes of the heads in a folder's `heads.safetensors`, by label; none where there is no such file."""
    if not (folder / HEADS).is_file():
        return {}
    heads: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in safetensors_header(folder / HEADS).items():
        label, _, rest = name.partition(".")
        heads.setdefault(label, {})[rest] = shape
    return {label: head_shape(tensors) for label, tensors in heads.items()}


def pixel_statistics(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation that the folder's `preprocessor_config.json` normalises with, where it says so."""
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return None
    config = read_json(file)
    mean, std = config.get("image_mean"), config.get("image_std")
    return (tuple(mean), tuple(std)) if isinstance(mean, list) and isinstance(std, list) else None


def licence(folder: Path) -> str:
    """The licence that the model card's front matter names, or ""."""
    card = folder / "README.md"
    if not card.is_file():
        return ""
    parts = card.read_text("utf-8", errors="replace").split("---")
    lines = parts[1].splitlines() if len(parts) > 2 and not parts[0].strip() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("license:")), "")
