"""Declarations of medical and many-channel images."""

import attrs

from dinomx_core import Reader, hookimpl, option


@attrs.frozen
class Dicom:
    """DICOM files: frames in the units of their modality, CT in HU; slices in the order in which they lie in the patient."""

    rescale: bool = option(True, "apply the modality's table or slope and intercept; false: numbers as they are stored")


def index_dicom(options, files):
    """Series, from headers alone."""
    from dinomx_medical_multichannel.dicom_index import index

    return index(options, files)


@hookimpl
def dinomx_readers():
    yield Reader("dicom", Dicom, "dinomx_medical_multichannel.dicom:DicomReader", suffixes=(), index=index_dicom)
