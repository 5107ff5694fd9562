"""The options of data sets of files, and what is asked of them. No torch, and nothing imported before it is needed."""

from typing import Literal

import attrs

from dinomx_core.builtin.label_options import label_kind, separator
from dinomx_core.declare.facts import DataInfo, LabelKind
from dinomx_core.declare.values import Chosen, below_one, not_negative, option, slot


@attrs.frozen(kw_only=True)
class Pictured:
    """What all data sets of files can do."""

    reader: Chosen = slot("reader", "image", "what decodes the files")
    channels: int = option(
        0,
        "0: as the files have them, but three for grey and colour of the reader `image`; 1: grey, colour becomes its luma; 3: grey "
        "becomes three equal channels; else: so many must be there",
        check=not_negative,
    )
    neighbours: int = option(
        0,
        "slices (frames, pages) before and after an image that become its channels, too: 1 makes three of one",
        check=not_negative,
    )
    part: Literal["all", "train", "test"] = option(
        "all", "train or test: one side of a split by group, which is the same wherever `split_seed` and `holdout` are"
    )
    holdout: float = option(0.2, "share of the groups in the test part", check=below_one)
    split_seed: int = option(0, "another split", check=not_negative)


@attrs.frozen
class ImageFolder(Pictured):
    """Images below a folder; each sub-folder of the first level is a class, a flat folder has no labels."""

    path: str = option(doc="the folder")
    labels: Literal["folders", "none"] = option(
        "folders", "none: sub-folders are no classes (but patients, for example)"
    )
    stack: list[str] = option(
        [],
        'parts of file names that tell the channels of an image apart, in their order: ["_t1", "_t2", "_flair"]; '
        "files that differ in nothing else are one image",
    )
    group: str = option(
        "",
        'pattern (regular expression) of what an image belongs to, in its path: "patient[0-9]+"; "": as the files say',
    )


@attrs.frozen
class ManifestFile(Pictured):
    """The rows of a CSV, JSON lines or Parquet file: paths, and labels, groups and regions beside them."""

    path: str = option(doc="the file, or its address (s3://...)")
    columns: list[str] = option(
        ["path"], "columns of paths, absolute or below the manifest's folder; several: a channel each"
    )
    label: str = option("", 'column of labels; "": no labels')
    label_kind: LabelKind = label_kind()
    separator: str = separator()
    group: str = option("", 'column of what an image belongs to, such as its patient; "": as the files say')
    mask: str = option(
        "",
        'column of paths of masks, whole numbers that are classes (of an indexed PNG those of the palette), 0 for none; "": no masks',
    )
    frame: str = option("", 'column of frame numbers (from 0) of files that hold several; "": all frames')
    box: list[str] = option(
        [], "columns of left, top, width and height, in pixels, of the region that is the image; none: all of it"
    )
    centre: list[str] = option(
        [], "columns of x and y, in pixels, of a cell's centre: the image is a square of `side` pixels around it"
    )
    side: int = option(0, "pixels of that square", check=not_negative)


def in_folder(options: ImageFolder) -> DataInfo:
    """Names, what the reader looks up, and some images."""
    from dinomx_core.builtin.picture_sets import find_folder, info_of

    return info_of(find_folder(options), options)


def in_rows(options: ManifestFile) -> DataInfo:
    """Rows, what the reader looks up, and some images."""
    from dinomx_core.builtin.picture_sets import find_rows, info_of

    return info_of(find_rows(options), options)
