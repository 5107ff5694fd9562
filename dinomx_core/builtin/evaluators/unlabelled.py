"""What evaluators on one set of images share."""

from collections.abc import Sequence
from typing import Any

from dinomx_core.builtin.pictures import evenly
from dinomx_core.training.construct import construct
from dinomx_core.training.contracts import Dataset, Encoder, Evaluator
from dinomx_core.training.evaluation import Features, features_of


class OneSetEvaluator(Evaluator):
    """`options` has `data`, `images` and `batch_size`."""

    def __init__(self, options: Any):
        self.options = options
        self.data: Dataset = construct(options.data)

    @property
    def images(self) -> Sequence[int]:
        """Numbers of the images that are looked at, evenly spread."""
        most = self.options.images
        return range(len(self.data)) if not most or most >= len(self.data) else evenly(len(self.data), most)

    def features(self, encoder: Encoder) -> Features:
        """Of those images, labelled or not."""
        return features_of(encoder, self.options.data, self.data, self.options.batch_size, self.images)
