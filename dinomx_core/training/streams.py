"""Random streams. A stream is named by numbers and words alone (seed, stage, step, index, purpose), never by a worker's state,
so a run is the same with any number of workers, a resume is a number, and a new purpose moves no other."""

import random

import torch

from dinomx_core.planning.seeds import seed_of


class Stream:
    """Random numbers of one sample; `purpose(name)` starts an independent stream beside it. `step`: a stream that all samples
    of its step have, on every rank."""

    def __init__(self, *name: int | str, step: "Stream | None" = None):
        self.name, self.step = name, step or self
        self._children: dict[str, random.Random] = {}

    def purpose(self, purpose: str) -> random.Random:
        """Draws for one purpose ("crop", "pixels"); the same object each time it is asked for."""
        if purpose not in self._children:
            self._children[purpose] = self.fresh(purpose)
        return self._children[purpose]

    def fresh(self, purpose: str) -> random.Random:
        """The draws for one purpose from their beginning."""
        return random.Random(seed_of(*self.name, purpose))

    def generator(self, purpose: str) -> torch.Generator:
        """A fresh torch generator for one purpose, for draws of whole tensors."""
        return torch.Generator().manual_seed(seed_of(*self.name, purpose))
