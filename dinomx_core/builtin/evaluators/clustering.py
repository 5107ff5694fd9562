"""k-means on features."""

import warnings
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_mutual_info_score, silhouette_score
from torch.nn import functional as F

from dinomx_core.builtin.evaluators.options import Clustering
from dinomx_core.builtin.evaluators.unlabelled import OneSetEvaluator
from dinomx_core.errors import DataError
from dinomx_core.training.contracts import Encoder

STARTS, SEED = 10, 0
COMPARED = 2000  # images whose distances to all others the silhouette takes


class ClusteringEvaluator(OneSetEvaluator):
    """k-means (10 starts, always the same) on features of length 1."""

    options: Clustering

    def evaluate(self, encoder: Encoder) -> dict[str, float]:
        """{"silhouette": mean over images of (b - a) / max(a, b), where a is the mean distance to the images of the same cluster and b
        that to those of the nearest other (Rousseeuw 1987), 0 where all features are the same; "ami": adjusted mutual information of
        clusters and classes (Vinh et al. 2010), 0 for chance, where images have a class each}. The first process does it for all."""
        found = self.features(encoder)
        clusters = self.options.clusters or len(self.options.data.component.inspect(self.options.data.options).classes)
        if len(found.vectors) <= clusters:
            raise DataError(f"only {len(found.vectors)} images can be read, too few for {clusters} clusters")
        figures = {}
        if encoder.parallelism.rank == 0:
            figures = clustered(F.normalize(found.vectors, dim=1).numpy(), found.labels, clusters)
        return encoder.parallelism.collect(figures)[0]


def clustered(vectors: np.ndarray, labels: Any, clusters: int) -> dict[str, float]:
    """The figures of vectors (M, D) and labels, of which those that are a class count."""
    with warnings.catch_warnings():  # fewer different vectors than clusters
        warnings.simplefilter("ignore", ConvergenceWarning)
        told = KMeans(clusters, n_init=STARTS, random_state=SEED).fit_predict(vectors)
    some = min(COMPARED, len(vectors)) if len(vectors) > COMPARED else None
    several = 1 < len(np.unique(told)) < len(vectors)
    silhouette = float(silhouette_score(vectors, told, sample_size=some, random_state=SEED)) if several else 0.0
    figures = {"silhouette": silhouette}
    classes = torch.tensor([label if isinstance(label, int) else -1 for label in labels])
    if (classes >= 0).any():
        keep = (classes >= 0).numpy()
        figures["ami"] = float(adjusted_mutual_info_score(classes.numpy()[keep], told[keep]))
    return figures
