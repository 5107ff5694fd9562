"""Toy configs of every method, strategy, parallelism and number of channels, and the table of which of them go together."""

import copy
import tempfile
from itertools import product
from pathlib import Path

from dinomx_core import ConfigError
from dinomx_core.testing.processes import group
from tests import together
from tests.fixtures import TOY, update

HEAD = {"prototypes": 32, "hidden": 16, "bottleneck": 8}
V2 = {
    "backbone": {"name": "dinov2", "layer_scale": 1.0},
    "head": {"ibot": HEAD},
    "losses": ["dino", "ibot", "koleo"],
    "loss": {"dino": {"target": {"name": "sinkhorn-knopp"}}, "ibot": {}, "koleo": {"across": "all"}},
    "masking": {"name": "blocks"},
}
V3 = {
    **V2,
    "backbone": {"name": "dinov3-vit", "layer_scale": 1.0, "rope_shift": 0.0, "rope_jitter": 1.0, "rope_rescale": 1.0},
    "head": {"dino": {"name": "dinov3"}, "ibot": {"name": "dinov3", **HEAD}},
}
METHODS = {"dinov1": {}, "dinov2": V2, "dinov3": V3}
STRATEGIES = {
    "full": {},
    "lora": {"strategies": ["lora"], "strategy": {"lora": {"rank": 2}}},
    "freeze": {"strategies": ["freeze"], "strategy": {"freeze": {"blocks": 1}}},
    "distill": {},
}
PARALLELISMS = ("single", "ddp", "fsdp")
CHANNELS = (1, 3, 5)
PAGE = Path(__file__).parents[1] / "docs" / "matrix.md"
HEADING = """\
# What goes with what

Each cell is a run of three steps at toy size that the tests repeat: a method, what is trained of it, how many channels the images have, and
how it is divided over processes (two of them). `runs`: the losses of every step are finite, and the same in all columns to 1e-8 in float64.

"""


def config(method, *changes, steps=20, precision="float64", teacher=""):
    """The toy run of a method with nothing random in its networks, changed. teacher: model folder that DINOv3's Gram loss, and a
    distillation, learn from."""
    result = copy.deepcopy(TOY)
    result["run"].update(steps=steps, precision=precision, out=str(Path(tempfile.gettempdir()) / "dinomx-mixes"))
    result["backbone"]["drop_path"] = 0.0
    for change in (METHODS[method], *changes):
        update(result, change)
    if method == "dinov3" and teacher:
        result["losses"] = [*result["losses"], "gram"]
        result["loss"]["gram"] = {"teacher": teacher, "refresh_every": 2}
    return result


def mix(method, strategy, channels, parallelism, teacher, processes=2):
    """One of the cells."""
    data = {"data": {"name": "planes", "channels": channels, "split": None}}
    result = config(method, data, STRATEGIES[strategy], steps=3, teacher=teacher)
    if strategy == "distill":
        result["losses"] = [*result.get("losses", ["dino"]), "distill-features"]
        result["loss"]["distill-features"] = {"teacher": teacher}
    if parallelism != "single":
        result["parallelism"] = {"name": parallelism, "processes": processes}
    return result


def make_teachers(folder):
    """A model folder for each number of channels."""
    found = {}
    for channels in CHANNELS:
        data = {"data": {"name": "planes", "channels": channels, "split": None}}
        run = {"run": {"name": f"teacher-{channels}", "out": str(folder), "steps": 1}}
        together.run(config("dinov3", data, run, precision="float32"), overwrite=True)
        found[channels] = str(folder / f"teacher-{channels}" / "export")
    return found


def outcomes(folder):
    """{(method, strategy, channels): {parallelism: losses of every step, or why the plan refuses it}}."""
    teachers = make_teachers(folder)
    found = {}
    for method, strategy, channels in product(METHODS, STRATEGIES, CHANNELS):
        cell = found[method, strategy, channels] = {}
        for parallelism in PARALLELISMS:
            table = mix(method, strategy, channels, parallelism, teachers[channels])
            try:
                if parallelism == "single":
                    rows = together.train(table, 3)["rows"]
                else:
                    rows = group(2)("tests.together:train", table, 3)[0]["rows"]
                cell[parallelism] = [row["loss"] for row in rows]
            except ConfigError as error:
                cell[parallelism] = str(error)
    return found


def page(found):
    """The table of docs/matrix.md."""
    lines = [
        "| method | trained | channels | " + " | ".join(f"`{name}`" for name in PARALLELISMS) + " |",
        "|---" * 6 + "|",
    ]
    for (method, strategy, channels), cell in found.items():
        words = [cell[name] if isinstance(cell[name], str) else "runs" for name in PARALLELISMS]
        lines.append(f"| {method} | {strategy} | {channels} | " + " | ".join(words) + " |")
    return HEADING + "\n".join(lines) + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        PAGE.write_text(page(outcomes(Path(place))), "utf-8")
