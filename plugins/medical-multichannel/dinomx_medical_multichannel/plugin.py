"""Declarations of medical and many-channel images."""

from typing import Literal

import attrs

from dinomx_core import Augmentation, Backbone, Intensity, Reader, fraction, hookimpl, not_negative, option
from dinomx_core.builtin.crops import check_multicrop, leaves_colours, multicrop_preprocessing, multicrop_views
from dinomx_medical_multichannel.channels import BagOfChannels, ChannelTokens, bag_shape, channel_tokens_shape
from dinomx_medical_multichannel.domains import DOMAINS, Natural, check_domain
from dinomx_medical_multichannel.numbers import (
    Log,
    Percentiles,
    Window,
    ZScore,
    check_declared,
    check_log,
    check_window,
    check_zscore,
    window_channels,
)

DINOMX_API = 1


@attrs.frozen
class Dicom:
    """DICOM files: frames in the units of their modality, CT in HU; slices in the order in which they lie in the patient."""

    rescale: bool = option(True, "apply the modality's table or slope and intercept; false: numbers as they are stored")


def index_dicom(options, files):
    """Series, from headers alone."""
    from dinomx_medical_multichannel.dicom_index import index

    return index(options, files)


@attrs.frozen
class Nifti:
    """Volumes (.nii, .nii.gz, .hdr with .img, .mgh, .mgz): slices along an axis of the body, however the file has its axes.

    Slices are shown as radiologists look at them: the patient's right on the left (of sagittal ones, the front on the left), the front of
    axial ones at the top, the head at the top of the others.
    """

    axis: Literal["axial", "coronal", "sagittal"] = option("axial", "which slices")
    fourth: Literal["channels", "frames"] = option(
        "channels", "what a fourth axis holds: channels of each slice, or volumes of their own"
    )
    skip_empty: float = option(
        0.0,
        "slices of which less than this share of voxels is above the volume's smallest number are left out; 0: none",
        check=fraction,
    )
    units: str = option("", 'units of the numbers, which files do not tell, such as "HU"')
    cache: int = option(1024, "MiB of decompressed volumes that a process keeps at most", check=not_negative)


def index_nifti(options, files):
    """Volumes, from headers alone unless empty slices are left out."""
    from dinomx_medical_multichannel.nifti_index import index

    return index(options, files)


@attrs.frozen
class Tiff:
    """TIFF of one or many pages, BigTIFF and OME-TIFF: C and samples are channels, Z, T and other axes count planes."""

    axes: str = option(
        "", 'the file\'s axes by letter, such as "TCYX", where it does not tell them or is wrong; "": as it tells'
    )
    channels: list[int] = option([], "which channels, in this order, counted from 0; none: all", check=not_negative)
    pages: Literal["channels", "frames"] = option("frames", "what pages are of which the file tells nothing")
    series: int = option(0, "which of a file's series, counted from 0", check=not_negative)


def index_tiff(options, files):
    """Planes, from the files' directories alone."""
    from dinomx_medical_multichannel.tiff_index import index

    return index(options, files)


@attrs.frozen
class OmeZarr:
    """OME-Zarr folders (NGFF 0.4 and 0.5): a level of an image's pyramid; C are channels, z, t and other axes count planes."""

    level: int = option(0, "of the pyramid: 0 is the finest", check=not_negative)
    image: str = option("", 'the image in a folder that holds several, such as "0" or "A/1/0"; "": the folder is one')
    channels: list[int] = option([], "which channels, in this order, counted from 0; none: all", check=not_negative)


def index_ome_zarr(options, folders):
    """Planes, from metadata alone."""
    from dinomx_medical_multichannel.ome_zarr import index

    return index(options, folders)


@hookimpl
def dinomx_readers():
    yield Reader("dicom", Dicom, "dinomx_medical_multichannel.dicom:DicomReader", suffixes=(), index=index_dicom)
    yield Reader(
        "nifti",
        Nifti,
        "dinomx_medical_multichannel.nifti:NiftiReader",
        suffixes=(".nii", ".nii.gz", ".hdr", ".mgh", ".mgz"),
        index=index_nifti,
        streams=False,
    )
    yield Reader(
        "tiff",
        Tiff,
        "dinomx_medical_multichannel.tiff:TiffReader",
        suffixes=(".tif", ".tiff", ".tf2", ".tf8", ".btf"),
        index=index_tiff,
    )
    yield Reader(
        "ome-zarr",
        OmeZarr,
        "dinomx_medical_multichannel.ome_zarr:OmeZarrReader",
        suffixes=(".zarr",),
        index=index_ome_zarr,
        folders=True,
        streams=False,
    )


@hookimpl
def dinomx_backbones():
    yield Backbone(
        "channel-tokens",
        ChannelTokens,
        "dinomx_medical_multichannel.backbones:build_channel_tokens",
        shape=channel_tokens_shape,
        any_channels=True,
    )
    yield Backbone(
        "bag-of-channels",
        BagOfChannels,
        "dinomx_medical_multichannel.backbones:build_bag",
        shape=bag_shape,
        any_channels=True,
    )


@hookimpl
def dinomx_intensities():
    where = "dinomx_medical_multichannel.intensities"
    yield Intensity("window", Window, f"{where}:WindowIntensity", channels=window_channels, check=check_window)
    yield Intensity("percentiles", Percentiles, f"{where}:PercentilesIntensity", check=check_declared)
    yield Intensity("z-score", ZScore, f"{where}:ZScoreIntensity", check=check_zscore, bounded=lambda options: False)
    yield Intensity("log", Log, f"{where}:LogIntensity", check=check_log)


@hookimpl
def dinomx_augmentations():
    for name, options in DOMAINS.items():
        yield Augmentation(
            name,
            options,
            "dinomx_medical_multichannel.augmentation:DomainAugmentation",
            views=multicrop_views,
            preprocessing=multicrop_preprocessing,
            check=check_domain,
            any_numbers=lambda options: True,
        )
    yield Augmentation(
        "natural",
        Natural,
        "dinomx_core.builtin.multicrop:MultiCropAugmentation",
        views=multicrop_views,
        preprocessing=multicrop_preprocessing,
        check=check_multicrop,
        any_numbers=leaves_colours,
    )
