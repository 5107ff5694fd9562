"""k-nearest-neighbour evaluation."""

import torch
from torch.nn import functional as F

from dinomx_core.builtin.labelled import LabelledEvaluator
from dinomx_core.builtin.scores import auroc, balanced_accuracy
from dinomx_core.builtin.scoring import Knn
from dinomx_core.errors import DataError
from dinomx_core.training.contracts import Encoder

QUERIES_AT_ONCE = 1024


class KnnEvaluator(LabelledEvaluator):
    """Cosine neighbours vote with exp(cosine / temperature)."""

    options: Knn

    def evaluate(self, encoder: Encoder) -> dict[str, float]:
        """{"accuracy@k": share of queries classified rightly} for each k; of the largest k also "balanced_accuracy@k" (mean recall of the
        classes) and "auroc@k" (of each class against the rest, by its share of the votes; their mean)."""
        bank, labels, queries, truth = self.features(encoder)
        bank, queries = F.normalize(bank, dim=1), F.normalize(queries, dim=1)
        ks = sorted(k for k in self.options.k if k <= len(bank))
        if not ks:
            raise DataError(f"only {len(bank)} images of the bank can be read, fewer than k = {min(self.options.k)}")
        right = dict.fromkeys(ks, 0)
        votes_of = [torch.empty(0)]
        classes = int(max(labels.max(), truth.max())) + 1
        asked, parallelism = len(queries), encoder.parallelism
        queries, truth = (rows[parallelism.rank :: parallelism.world_size] for rows in (queries, truth))
        for first in range(0, len(queries), QUERIES_AT_ONCE):
            part, answer = queries[first : first + QUERIES_AT_ONCE], truth[first : first + QUERIES_AT_ONCE]
            cosine, neighbours = (part @ bank.T).topk(max(ks), dim=1)
            votes = (cosine / self.options.temperature).exp()
            for k in ks:
                scores = torch.zeros(len(part), classes)
                scores.scatter_add_(1, labels[neighbours[:, :k]], votes[:, :k])
                right[k] += int((scores.argmax(1) == answer).sum())
            votes_of.append(scores / scores.sum(1, keepdim=True))
        everyone = parallelism.collect((right, torch.cat(votes_of[1:] or votes_of), truth))
        figures = {f"accuracy@{k}": sum(part[k] for part, _, _ in everyone) / asked for k in ks}
        shares, answers = (torch.cat([part[n] for part in everyone if len(part[n])]) for n in (1, 2))
        figures[f"balanced_accuracy@{ks[-1]}"] = float(balanced_accuracy(shares.argmax(1), answers))
        figures[f"auroc@{ks[-1]}"] = auroc(shares, answers)
        return figures
