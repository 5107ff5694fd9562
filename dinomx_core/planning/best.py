"""Whether a figure can choose the best checkpoint."""

from collections.abc import Iterable

from dinomx_core.declare.figures import judged
from dinomx_core.planning.report import Report


def fault_of_figure(figure: str, labels: Iterable[str]) -> str:
    """Why a figure ("knn/accuracy@20") of evaluations of those labels cannot choose, or ""."""
    if (label := figure.partition("/")[0]) not in labels:
        return f'no evaluation is called "{label}"; there are: {", ".join(labels) or "none"}'
    if not judged(figure):
        return f'"{figure}" is told beside the figures, and more of it is not better; name a figure'
    return ""


def check_best(report: Report) -> None:
    """Refuse a `checkpoint.keep_best` that no evaluation gives."""
    best = report.spec.checkpoint.keep_best
    if best and (fault := fault_of_figure(best, report.spec.evaluate)):
        report.refuse(fault, "checkpoint.keep_best")
