"""The contracts."""

import tempfile
from pathlib import Path

from dinomx_core.testing import conformance

PLACE = tempfile.TemporaryDirectory()


def options():
    """Digits with a box in the middle of some."""
    boxes = Path(PLACE.name) / "boxes.csv"
    rows = [f"digit-{5 * number + 4},2,2,4,4,ink" for number in range(40)]
    boxes.write_text("\n".join(["image,left,top,width,height,class", *rows]))
    images = {"name": "marked", "images": {"name": "digits", "split": "test"}, "boxes": str(boxes)}
    return {"evaluator localisation": {"images": images}}


test_conforms = conformance("dinomx-interpret", options)
