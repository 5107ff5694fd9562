"""The model card of an export."""

from collections.abc import Iterator
from typing import Any


def model_card(about: dict[str, Any], evaluations: list[dict[str, Any]]) -> str:
    """A Hugging Face model card (README.md): what is known is filled in, what only its author knows is left as a blank."""
    return "\n".join(_lines(about, evaluations)) + "\n"


def _lines(about: dict[str, Any], evaluations: list[dict[str, Any]]) -> Iterator[str]:
    run, start, how = about["run"], about["start"], about["preprocessing"]
    losses = ", ".join(dict.fromkeys(run["losses"].values()))
    yield "---"
    yield "library_name: transformers"
    yield "pipeline_tag: image-feature-extraction"
    if start:
        if start["hub"]:
            yield f"base_model: {start['weights']}"
        if start["licence"]:
            yield f"license: {start['licence']}"
    yield "tags:"
    yield from (f"- {tag}" for tag in dict.fromkeys(["self-supervised", "vision", *run["losses"].values()]))
    yield "---"
    yield ""
    yield f"# {run['name']}"
    yield ""
    yield (
        f"A vision transformer of {run['parameters'] / 1e6:.1f} M parameters for {about['channels']}-channel images, trained "
        f"without labels ({losses}) with DINO-MX."
    )
    yield ""
    yield "## Base weights"
    yield ""
    if start:
        yield f"Started from `{start['weights']}`: {start['report']}."
        yield f"Licence of the base weights: {start['licence'] or '[not stated by them: find out before you share these]'}."
    else:
        yield "None: trained from scratch."
    yield ""
    yield "## Training data"
    yield ""
    data = run["data"]
    what = "numbers as labels" if data.get("labels") == "number" else f"{data['classes']} classes"
    labels = f"{what}, which training did not see" if data.get("labels") or data["classes"] else "no labels"
    yield f"{data['images']} images of {about['channels']} channels (`{data['name']}`), {labels}."
    yield ""
    yield "Origin, licence, consent and known biases: [to be filled in]"
    yield ""
    yield "## Training"
    yield ""
    of = "" if about["step"] == run["steps"] else f" of {run['steps']}"
    yield (
        f"{about['step']}{of} steps of {run['batch_size']} images (all {run['steps']} are {run['passes']:g} passes over the data), "
        f"{run['precision']}; the network is the {about['network']}."
    )
    if run["strategies"]:
        names = ", ".join(dict.fromkeys(run["strategies"].values()))
        yield f"With {names}: {run['trained'] / 1e6:.3g} M of the backbone's parameters were trained."
    yield ""
    yield f"```sh\n{run['command']}\n```"
    yield ""
    yield ", ".join(f"{name} {version}" for name, version in run["versions"].items()) + "."
    yield ""
    yield "## Preprocessing"
    yield ""
    yield (
        f"Shorter side to {how['resize']} px (bicubic, antialiased), centre crop {how['crop']} px, values over 0..1, "
        f"minus {list(how['mean'])}, over {list(how['std'])}. `dinomx_core.load(folder)` does it; "
        "`preprocessor_config.json` says it to transformers."
    )
    yield ""
    yield "## Evaluation"
    yield ""
    yield from _evaluation(evaluations)
    yield ""
    yield "## Intended use and limits"
    yield ""
    yield "[to be filled in: who should use it for what, and who should not]"
    yield ""
    yield "## How to use"
    yield ""
    yield "```python"
    yield "import dinomx_core"
    yield ""
    yield 'model = dinomx_core.load("path/to/this/folder")'
    yield 'tokens = model(["image.png"])  # .cls (1, D), .patches (1, N, D)'
    yield "```"


def _evaluation(evaluations: list[dict[str, Any]]) -> Iterator[str]:
    skip = ("step", "seconds")
    names = list(dict.fromkeys(name for row in evaluations for name in row if name not in skip))
    if not names:
        yield "None was made."
        return
    first, last = evaluations[0], evaluations[-1]
    shown = [first] if first is last else [first, last]
    steps = " | ".join(f"step {row['step']}" for row in shown)
    yield f"| figure | {steps} |"
    yield f"|---|{'---|' * len(shown)}"
    for name in names:
        cells = (row.get(name) for row in shown)
        yield f"| {name} | {' | '.join('' if cell is None else f'{cell:.4g}' for cell in cells)} |"
