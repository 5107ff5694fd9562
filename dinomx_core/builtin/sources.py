"""Declarations of data sets that others made: tars of samples, Hugging Face data sets, MedMNIST files."""

from typing import Literal

import attrs

from dinomx_core.builtin.label_options import label_kind, separator
from dinomx_core.declare.facts import DataInfo, LabelKind
from dinomx_core.declare.values import Chosen, not_empty, option, slot

Channels = Literal[0, 1, 3]
CHANNELS = "0: as images have them; 3: grey becomes three equal channels; 1: colour becomes its luma"


@attrs.frozen
class Shards:
    """Samples in tars (WebDataset): files of one name before the first dot are a sample, such as 0001.jpg, 0001.json, 0001.cls."""

    path: str | list[str] = option(
        doc='a folder of tars, a tar, or a pattern ("shards/{000..127}.tar", "shards/*.tar"), here or at a URL; or several of these'
    )
    image: str = option(
        "", 'ending of the images, such as "jpg" or "seg.png"; left out: those of the reader, and "npy"'
    )
    label: str = option("", 'key of `.json` that is the label; left out: what is in `.cls`, else the key "label"')
    label_kind: LabelKind = label_kind()
    separator: str = separator()
    group: str = option("group", "key of `.json` that says what an image belongs to, such as a patient")
    channels: Channels = option(0, CHANNELS)
    reader: Chosen = slot("reader", "image", "decodes the images; `.npy` needs none")


def count_shards(options: Shards) -> DataInfo:
    """Looks through each tar once, and keeps where its samples lie; some images are decoded."""
    from dinomx_core.builtin.labels import kind_of, unlabelled
    from dinomx_core.builtin.tar_samples import Samples, look_at

    samples = Samples(options)
    seen = look_at(samples)
    notes = unlabelled(samples.labels, samples.classes)
    told = sum(tar["samples"] > 0 for tar in samples.facts["tars"]) if "tars" in samples.facts else len(samples.tars)
    if told != len(samples.tars):
        notes = (*notes, f"{len(samples.tars)} tars are used, of {told} that shards.json names")
    return DataInfo(
        len(samples),
        seen.channels,
        samples.classes,
        notes,
        samples.digest,
        unreadable=samples.unreadable,
        sampled=seen.sampled,
        names=tuple(samples.facts.get("names", ())),
        label_kind=kind_of(samples.labels),
    )


@attrs.frozen
class HfDataset:
    """A Hugging Face data set on this machine: what `save_to_disk` wrote, or Parquet or Arrow files; nothing is downloaded."""

    path: str = option(doc="its folder, or one Parquet or Arrow file", check=not_empty("name the data set's folder"))
    split: str = option("", 'which part; "all": all of them; left out: the only one')
    image: str = option("image", "column of images: encoded ones, paths, or arrays")
    label: str = option("label", "column of labels; a default that is not there is none")
    label_kind: LabelKind = label_kind()
    separator: str = separator()
    group: str = option(
        "group", "column of what images belong to, such as a patient; a default that is not there is none"
    )
    axes: Literal["HWC", "CHW"] = option("HWC", "order of rows, columns and channels of arrays")
    channels: Channels = option(0, CHANNELS)
    reader: Chosen = slot("reader", "image", "decodes encoded images; arrays need none")


def count_rows(options: HfDataset) -> DataInfo:
    """Labels and groups of all rows are read; some images are decoded."""
    from dinomx_core.builtin.hf_rows import Rows, look_at
    from dinomx_core.builtin.labels import kind_of, unlabelled

    rows = Rows(options)
    seen = look_at(rows)
    notes = unlabelled(rows.labels, rows.classes)
    return DataInfo(
        len(rows),
        seen.channels,
        rows.classes,
        notes,
        rows.digest,
        sampled=seen.sampled,
        label_kind=kind_of(rows.labels),
    )


@attrs.frozen
class MedMnist:
    """A MedMNIST file (.npz): small medical images with labels, in parts for training, validation and testing."""

    path: str = option(doc="the file", check=not_empty("name the .npz"))
    split: Literal["train", "val", "test", "all"] = option("train", "which part")
    volumes: Literal["refuse", "slices"] = option(
        "refuse", '"slices": each slice of a volume is an image, grouped by its volume'
    )
    channels: Channels = option(0, CHANNELS)


def count_medmnist(options: MedMnist) -> DataInfo:
    """Unpacked into the cache, once."""
    from dinomx_core.builtin.labels import kind_of
    from dinomx_core.builtin.medmnist_file import Arrays, look_at

    arrays = Arrays(options)
    seen = look_at(arrays)
    return DataInfo(
        len(arrays), seen.channels, arrays.classes, arrays.notes, arrays.digest, sampled=seen.sampled, label_kind=kind_of(arrays.labels),
    )  # fmt: skip
