"""Images of a data set, read by a few threads, each with what its intensity makes of it."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import attrs
import numpy as np
import torch

from dinomx_core.errors import DataError
from dinomx_core.training.contracts import Dataset, Intensity
from dinomx_core.training.flow import Item
from dinomx_core.training.pixels import to_float

THREADS, AHEAD = 4, 16  # images that wait at most
Result = TypeVar("Result")


@attrs.frozen(eq=False)
class Seen:
    """One image. before, after: (C, H * W) NumPy arrays of its numbers, and of what the intensity made of them (None where there is none).
    digest: stands for its pixels. fault: why it cannot be read, or means nothing to the intensity."""

    index: int
    item: Item | None = None
    before: np.ndarray | None = None
    after: np.ndarray | None = None
    digest: str = ""
    fault: str = ""


def ahead(work: Callable[[int], Result], numbers: Iterable[int]) -> Iterator[Result]:
    """work(number) of each number in their order, done by some threads ahead of its use."""
    with ThreadPoolExecutor(THREADS) as pool:
        waiting: deque[Future[Result]] = deque()
        for number in numbers:
            waiting.append(pool.submit(work, number))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def see(data: Dataset, intensity: Intensity | None, index: int) -> Seen:
    """Read an image; faults of the user's data are told in the result."""
    try:
        item = data[index]
    except DataError as error:
        return Seen(index, fault=str(error))
    before, own = flat(item.image), replace(item, image=item.image.clone())  # an intensity may work in place
    if before.dtype.kind == "f" and not np.isfinite(before).all():
        return Seen(index, fault=f"{item.id}: holds pixels that are not finite numbers")
    if intensity is None:
        return Seen(index, item, before, None, digest_of(item.image))
    try:
        after = intensity(own).image
    except DataError as error:
        return Seen(index, item, before, None, digest_of(item.image), f"{item.id}: {error}")
    return Seen(index, item, before, flat(to_float(after)), digest_of(item.image))


def flat(image: torch.Tensor) -> np.ndarray:
    """(C, H, W) -> (C, H * W)."""
    return image.reshape(len(image), -1).numpy()


def digest_of(image: torch.Tensor) -> str:
    """Stands for pixels, their number type and their shape."""
    digest = hashlib.blake2b(f"{image.dtype} {tuple(image.shape)}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image.numpy()).data)
    return digest.hexdigest()
