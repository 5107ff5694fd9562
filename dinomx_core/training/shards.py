"""Tensors on disk that several processes write a part of each: safetensors files, which say where a part belongs in the whole.

A state is the tensors of one module. The first process's file is `NAME.safetensors`; it holds what is not divided, and its own parts. Those
of the others are `NAME.RANK.safetensors`. One process alone writes the same format, and any number reads it.
"""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from dinomx_core.training.contracts import Parallelism, Part

PARTS = "parts"  # in a file's metadata: {tensor: [offsets, shape of the whole]}, as JSON


def files_of(folder: Path, name: str) -> list[Path]:
    """The files of a state, the first process's first; none where there is no such state."""
    first = folder / f"{name}.safetensors"
    if not first.is_file():
        return []
    others = (file for file in folder.glob(f"{name}.*.safetensors") if file.stem[len(name) + 1 :].isdecimal())
    return [first, *sorted(others)]


def write_state(folder: Path, name: str, tensors: Mapping[str, Tensor], parallelism: Parallelism) -> None:
    """Write what this process holds of a state; every process calls this."""
    own, places = {}, {}
    for key, tensor in tensors.items():
        part = parallelism.part(tensor)
        if part.is_whole and parallelism.rank:
            continue
        own[key] = part.tensor.cpu().contiguous()
        if not part.is_whole:
            places[key] = [part.offsets, part.shape]
    first = parallelism.rank == 0
    if own or first:
        file = folder / (f"{name}.safetensors" if first else f"{name}.{parallelism.rank}.safetensors")
        save_file(own, file, {PARTS: json.dumps(places)} if places else None)


class State:
    """A state on disk, to be read tensor by tensor, or a part of one."""

    def __init__(self, folder: Path, name: str):
        """Raises FileNotFoundError when there is no such state."""
        files = files_of(folder, name)
        if not files:
            raise FileNotFoundError(f"{folder / name}.safetensors is missing")
        self._stack = ExitStack()
        self._found: dict[str, list[tuple[Any, tuple[int, ...]]]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for file in files:
            opened = self._stack.enter_context(safe_open(file, "pt"))
            places = json.loads((opened.metadata() or {}).get(PARTS, "{}"))
            for key in opened.keys():  # noqa: SIM118 - it is no mapping
                shape = tuple(opened.get_slice(key).get_shape())
                offsets, whole = places.get(key, [(0,) * len(shape), shape])
                self._found.setdefault(key, []).append((opened, tuple(offsets)))
                self.shapes[key] = tuple(whole)

    def read(self, key: str, like: Part | None = None) -> Tensor:
        """A tensor, or the part of it that `like` is. Raises KeyError when it is not there or parts are missing."""
        shape = self.shapes[key]
        begin = like.offsets if like else (0,) * len(shape)
        size = tuple(like.tensor.shape) if like else shape
        result: Tensor | None = None
        filled = 0
        for file, offsets in self._found[key]:
            there = file.get_slice(key)
            count = there.get_shape()
            low = [max(b, o) for b, o in zip(begin, offsets)]
            high = [min(b + s, o + c) for b, s, o, c in zip(begin, size, offsets, count)]
            if any(a >= b for a, b in zip(low, high)):
                continue
            inside = tuple(slice(a - o, b - o) for a, b, o in zip(low, high, offsets))
            piece = there[inside] if inside else file.get_tensor(key)
            if tuple(piece.shape) == size:
                return piece
            if result is None:
                result = piece.new_empty(size)
            result[tuple(slice(a - o, b - o) for a, b, o in zip(low, high, begin))] = piece
            filled += piece.numel()
        if result is None:  # nothing of it is asked for, or it holds no numbers
            file, _ = self._found[key][0]
            result = file.get_tensor(key).new_empty(size)
        if filled != result.numel():
            raise KeyError(f"{key} is not whole")
        return result

    def tensors(self, within: str = "") -> dict[str, Tensor]:
        """All tensors, or those whose names begin so, without that beginning."""
        return {key[len(within) :]: self.read(key) for key in self.shapes if key.startswith(within)}

    def __enter__(self) -> "State":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def load_state(folder: Path, name: str, within: str = "") -> dict[str, Tensor]:
    """A whole state's tensors by name; see `State.tensors`."""
    with State(folder, name) as state:
        return state.tensors(within)


def fill(tensors: Mapping[str, Tensor], state: State, parallelism: Parallelism) -> None:
    """Give tensors the values of a state, each its part. Raises KeyError when one is missing or of another shape."""
    with torch.no_grad():
        for name, tensor in tensors.items():
            part = parallelism.part(tensor)
            if state.shapes[name] != part.shape:
                raise KeyError(f"{name} is {list(state.shapes[name])} there and {list(part.shape)} here")
            part.tensor.copy_(state.read(name, part))
