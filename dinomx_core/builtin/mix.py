"""Several data sets as one."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace

from dinomx_core.builtin.data_options import Mix, inspected
from dinomx_core.training.construct import construct
from dinomx_core.training.contracts import Dataset
from dinomx_core.training.flow import Item, Label


class MixData(Dataset):
    """One data set after the other; the classes, and the channels where they have names, are those of all."""

    def __init__(self, options: Mix):
        info, infos = inspected(options)
        self.sets: list[Dataset] = [construct(chosen) for chosen in options.sources.values()]
        self.starts = [sum(len(data) for data in self.sets[:n]) for n in range(len(self.sets))]
        self.labelled = info.labelled
        self.labels = [[info.classes.index(name) for name in inner.classes if info.classes] for inner in infos]
        self.channels = [part.channels if info.sets and len(info.sets) > 1 else None for part in info.parts]

    def __len__(self) -> int:
        return sum(len(data) for data in self.sets)

    def __getitem__(self, index: int) -> Item:
        number = bisect_right(self.starts, index) - 1
        item = self.sets[number][index - self.starts[number]]
        return replace(item, label=self.label(item.label, self.labels[number]), channels=self.channels[number])

    def name(self, index: int) -> str | None:
        """As its own data set has it."""
        number = bisect_right(self.starts, index) - 1
        return self.sets[number].name(index - self.starts[number])

    def label(self, label: Label | None, numbers: Sequence[int]) -> Label | None:
        """A source's label among those of all; `numbers`: of its classes there."""
        if not self.labelled or isinstance(label, float):
            return label if self.labelled else None
        if isinstance(label, int):
            return numbers[label]
        return None if label is None else tuple(numbers[one] for one in label)
