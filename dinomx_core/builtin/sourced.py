"""Data sets that others made, as the loader reads them."""

from typing import Any

from dinomx_core.builtin import hf_rows, medmnist_file, tar_samples
from dinomx_core.builtin.labels import label_at
from dinomx_core.builtin.sources import HfDataset, MedMnist, Shards
from dinomx_core.declare.reading import Plane
from dinomx_core.errors import DataError
from dinomx_core.training.contracts import Dataset
from dinomx_core.training.flow import Item, Label
from dinomx_core.training.images import from_plane, to_channels


def item_of(plane: Plane, place: str, wanted: int, label: Label | None, **facts: Any) -> Item:
    """An item of `wanted` channels (0: as many as there are) from what was read at a place that messages name."""
    try:
        image = from_plane(plane)
        image = to_channels(image, wanted) if wanted else image
    except DataError as error:
        raise DataError(f"{place}: {error}") from None
    return Item(image, label, units=plane.units, full=plane.full, **facts)


def check_channels(item: Item, channels: int, place: str) -> Item:
    """Raise DataError for an image with other channels than the data set."""
    if item.channels is None and item.image.shape[0] != channels:
        raise DataError(
            f"{place}: has {item.image.shape[0]} channels where the data set has {channels}; set channels for all of them"
        )
    return item


class ShardsData(Dataset):
    """Reads one sample an item, from its place in its tar."""

    def __init__(self, options: Shards):
        self.options, self.samples = options, tar_samples.Samples(options)
        self.channels = tar_samples.look_at(self.samples).channels

    def __reduce__(self) -> Any:
        return type(self), (self.options,)  # indexes are on disk; a copy need not carry them

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Item:
        sample = self.samples.read(index)
        group, own = int(self.samples.groups[index]), sample.notes.get("channels")
        packed = 0 if own else self.samples.facts.get("channels", 0)
        item = item_of(
            sample.plane,
            sample.id,
            self.options.channels or packed,
            label_at(self.samples.labels, index),
            id=sample.id,
            group=self.samples.group_names[group] if group >= 0 else "",
            channels=None if own is None else tuple(own),
        )
        return check_channels(item, self.channels, sample.id)


class HfData(Dataset):
    """Reads one row an item."""

    def __init__(self, options: HfDataset):
        self.options, self.rows = options, hf_rows.Rows(options)
        self.channels = hf_rows.look_at(self.rows).channels

    def __reduce__(self) -> Any:
        return type(self), (self.options,)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Item:
        plane, name = self.rows.read(index)
        group, place = int(self.rows.groups[index]), self.rows.place(index)
        group_name = self.rows.group_names[group] if group >= 0 else ""
        label = label_at(self.rows.labels, index)
        item = item_of(plane, place, self.options.channels, label, id=name, group=group_name)
        return check_channels(item, self.channels, place)


class MedMnistData(Dataset):
    """Reads one image, or slice, an item."""

    def __init__(self, options: MedMnist):
        self.options, self.arrays = options, medmnist_file.Arrays(options)

    def __reduce__(self) -> Any:
        return type(self), (self.options,)

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, index: int) -> Item:
        name, group = self.arrays.name(index)
        label = label_at(self.arrays.labels, index)
        return item_of(self.arrays.read(index), name, self.options.channels, label, id=name, group=group)
