"""Several data sets as one."""

from bisect import bisect_right
from dataclasses import replace

from dinomx_core.builtin.data_options import Mix, inspected
from dinomx_core.training.construct import construct
from dinomx_core.training.contracts import Dataset
from dinomx_core.training.flow import Item


class MixData(Dataset):
    """One data set after the other; the classes, and the channels where they have names, are those of all."""

    def __init__(self, options: Mix):
        info, infos = inspected(options)
        self.sets: list[Dataset] = [construct(chosen) for chosen in options.sources.values()]
        self.starts = [sum(len(data) for data in self.sets[:n]) for n in range(len(self.sets))]
        self.labels = [[info.classes.index(name) for name in inner.classes] for inner in infos]
        self.channels = [part.channels if info.sets and len(info.sets) > 1 else None for part in info.parts]

    def __len__(self) -> int:
        return sum(len(data) for data in self.sets)

    def __getitem__(self, index: int) -> Item:
        number = bisect_right(self.starts, index) - 1
        item = self.sets[number][index - self.starts[number]]
        label = None if item.label is None or not self.labels[number] else self.labels[number][item.label]
        return replace(item, label=label, channels=self.channels[number])
