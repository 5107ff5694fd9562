"""Means of embeddings over the images of a group: a patient, a well. No torch."""

from collections.abc import Sequence

import numpy as np

from dinomx_core.builtin.manifest import numbered
from dinomx_core.training.embed.images import COUNT, Images
from dinomx_core.training.embed.tables import Columns, Frame


class Pool:
    """Adds embeddings up by a column's values. `differ`: further columns that are not the same within every group so far."""

    def __init__(self, images: Images, column: str):
        self.column = column
        self.columns = images.groups
        self.group = np.fromiter(numbered(self.columns[column]), np.int64, len(images))
        self.others = {
            name: np.fromiter(numbered(values), np.int64, len(images))
            for name, values in self.columns.items()
            if name != column
        }
        groups = int(self.group.max()) + 1
        self.first = np.full(groups, -1)  # the row of each group's first image
        self.count: np.ndarray = np.zeros(groups, np.int64)
        self.sum = np.zeros((groups, 0))
        self.differ: set[str] = set()

    def add(self, rows: Sequence[int], embeddings: np.ndarray) -> None:
        """Take the embeddings (M, D) of some rows, which come in their order."""
        if not len(rows):
            return
        chosen = np.asarray(rows)
        groups = self.group[chosen]
        if not self.sum.shape[1]:
            self.sum = np.zeros((len(self.sum), embeddings.shape[1]))
        np.add.at(self.sum, groups, embeddings)  # row by row, so that it does not matter in how many calls
        self.count += np.bincount(groups, minlength=len(self.count))
        found, where = np.unique(groups, return_index=True)
        fresh = self.first[found] < 0
        self.first[found[fresh]] = chosen[where[fresh]]
        for name, values in self.others.items():
            if np.any(values[chosen] != values[self.first[groups]]):
                self.differ.add(name)

    def frame(self, parquet: bool) -> Frame:
        """A row a group, in the order of their first images: the column, `count`, the others that are the same within every group, and
        the mean (G, D) float32."""
        groups = np.flatnonzero(self.count)
        groups = groups[np.argsort(self.first[groups])]
        rows = self.first[groups].tolist()
        same = {name: self.columns[name] for name in self.others if name not in self.differ}
        count = Columns({COUNT: self.count[groups].tolist()}, parquet).columns
        columns = {**Columns({self.column: self.columns[self.column]}, parquet).take(rows), **count}
        mean = (self.sum[groups] / self.count[groups, None]).astype(np.float32)
        return {**columns, **Columns(same, parquet).take(rows)}, mean
