"""Names of figures of evaluations. No torch."""

INFO = "info/"


def judged(figure: str) -> bool:
    """Whether of a figure, named "label/name", more is better: it is no information ("knn/info/mae@20"), which nothing judges by."""
    return not figure.partition("/")[2].startswith(INFO)
