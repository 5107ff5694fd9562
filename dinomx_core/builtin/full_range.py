"""The intensity that changes nothing but the scale: numbers over their whole range."""

import torch

from dinomx_core.builtin.data_options import FullRange
from dinomx_core.errors import DataError
from dinomx_core.training.contracts import Intensity
from dinomx_core.training.flow import Item, replaced
from dinomx_core.training.pixels import scaled

TYPES = {torch.uint8: (0.0, 255.0), torch.uint16: (0.0, 65535.0)}
REMEDY = "say what they mean: [intensity] with a range, or another intensity (window, percentiles)"


class FullRangeIntensity(Intensity):
    """The given range, or the file's own, or its number type's, becomes 0..1."""

    def __init__(self, options: FullRange):
        self.given = (options.range[0], options.range[1]) if options.range else None

    def __call__(self, item: Item) -> Item:
        """Whole types stay as they are. Raises DataError for numbers outside the range, or floats without one outside 0..1."""
        image = item.image
        full = self.given or item.full or TYPES.get(image.dtype, (0.0, 1.0))
        if TYPES.get(image.dtype) == full:
            return item
        low, high = (float(value) for value in torch.aminmax(image.float()))
        if not (full[0] <= low and high <= full[1]):  # nor where one is not a number
            where = f"the range {full[0]:g} to {full[1]:g}" if self.given or item.full else "0..1"
            raise DataError(f"pixels from {low:g} to {high:g} are outside {where}; {REMEDY}")
        return replaced(item, scaled(image, *full))
