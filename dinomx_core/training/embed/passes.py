"""Images -> embeddings, with numbers that do not depend on how many threads or processes there are."""

import contextlib
import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from dinomx_core.builtin.pictures import read
from dinomx_core.declare.reading import PlaneReader
from dinomx_core.planning.plan import Env
from dinomx_core.planning.walk import as_table
from dinomx_core.planning.world import World
from dinomx_core.training.construct import construct
from dinomx_core.training.contracts import Dataset
from dinomx_core.training.embed.images import Images
from dinomx_core.training.embed.job import EmbedJob
from dinomx_core.training.evaluation import read_ahead
from dinomx_core.training.flow import Item, Tokens
from dinomx_core.training.images import from_plane
from dinomx_core.training.model import Model

TAKE: dict[str, Callable[[Tokens], torch.Tensor]] = {
    "cls": lambda tokens: tokens.features,
    "patch-mean": lambda tokens: tokens.patches.mean(1),
    "patches": lambda tokens: tokens.patches,
}
BATCH, CPU_BATCH = 64, 16  # images a forward pass; on a CPU every thread has one
GPU_PASSES = 4  # passes that are prepared for a GPU at a time
Batch = tuple[list[int], np.ndarray]  # rows, and their embeddings


class EmbeddedImages(Dataset):
    """The images to embed, in their files' numbers."""

    def __init__(self, images: Images, reader: PlaneReader):
        self.images, self.reader = images, reader

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Item:
        plane = read(self.images.pictures, self.reader, index)
        return Item(from_plane(plane), None, self.images.ids[index], "", plane.units, plane.full)


class Passes:
    """Forward passes of a model over rows of `images`, several at a time. On a CPU each is one thread's: how a product is divided over
    threads changes its last bits. To be used within `with`."""

    def __init__(self, model: Model, images: Images, job: EmbedJob, world: World | None):
        local_rank, here = (world.local_rank, world.local_size) if world else (0, 1)
        device = torch.device("cpu")
        if torch.cuda.is_available():
            device = torch.device("cuda", local_rank % torch.cuda.device_count())
        self.model, self.take = model.to(device), TAKE[job.tokens]
        self.data = EmbeddedImages(images, construct(model.reading.reader))
        gpu = device.type == "cuda"
        threads = max(1, Env.here().cores // here)
        self.batch_size = job.batch_size or (BATCH if gpu else CPU_BATCH)
        self.at_once = min(threads, GPU_PASSES) if gpu else threads
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "Passes":
        self._open.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        self.pool = self._open.enter_context(ThreadPoolExecutor(self.at_once, "passes", torch.set_num_threads, (1,)))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def encode(self, items: Sequence[Item]) -> np.ndarray:
        """Embeddings (B, D), or (B, N, D) for patches, float32."""
        return self.take(self.model.encode(items)).float().cpu().numpy()

    def over(self, rows: range, faults: list[tuple[int, str]]) -> Iterator[Batch]:
        """The rows that can be read, in order, at least one batch of them; `faults` gets the others and what is wrong with them."""
        waiting: deque[tuple[list[int], Future[np.ndarray]]] = deque()
        texts: list[str] = []
        read: set[int] = set()
        batch: list[int] = []
        items: list[Item] = []

        def submit() -> None:
            waiting.append((batch.copy(), self.pool.submit(self.encode, items.copy())))
            batch.clear()
            items.clear()

        for row, item in read_ahead(self.data, self.model.prepare, texts.append, rows):
            read.add(row)
            batch.append(row)
            items.append(item)
            if len(items) == self.batch_size:
                submit()
            while len(waiting) > self.at_once:
                done, embeddings = waiting.popleft()
                yield done, embeddings.result()
        if items:
            submit()
        for done, embeddings in waiting:
            yield done, embeddings.result()
        faults.extend(zip((row for row in rows if row not in read), texts))
        if not read:
            blank = Item(torch.zeros(self.model.channels, *self.model.preprocessing.crop))
            yield [], self.encode([blank])[:0]


def digest_of(model: Model) -> str:
    """Stands for a model's weights, its shape and how images go in."""
    digest = hashlib.blake2b(digest_size=8)
    about = [as_table(model.backbone.options), as_table(model.preprocessing), model.channels, as_table(model.intensity)]
    digest.update(json.dumps(about, default=str).encode())
    for name, tensor in model.backbone.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
