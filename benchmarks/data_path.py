"""Images a second of the data path alone, on one core and without a model: reading, intensity, augmentation and collation as training
does them, for files of many kinds.

    python benchmarks/data_path.py [--rounds N] [--only WORD] [--against FOLDER] [--torchvision FOLDER]

prints a Markdown table: medians of rounds in which every kind and every stage takes its turn, each kind in a process of its own; and the
process's peak memory over what the imports take. `--against`: another checkout of this repository, whose processes take turns with these.
`--torchvision`: a folder that torchvision was installed into; its v2 transforms then make the same crops of the same photos, as far as they
can (jitter in the order and with the kernels that they have).
"""

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data_sets import SETS, config_of
from method_cost import peak

STAGES = ("read", "intensity", "all")
TURN, ROUNDS = 0.25, 5  # seconds of a kind's stage in a round
TORCHVISION = "torchvision v2 on the {}"
PACKAGES = ("", *(f"plugins/{name}" for name in ("dinov1", "medical-multichannel")))


def stages(config: dict[str, Any]) -> dict[str, Iterator[int]]:
    """Endless iterators that do a piece of work and tell how many images it was."""
    from dinomx_core import api
    from dinomx_core.training.construct import construct
    from dinomx_core.training.data import MicroBatches, TrainingImages, make_loader

    plan = api.plan(config)
    spec = plan.spec
    images = TrainingImages(
        construct(spec.data), construct(spec.augmentation, plan.data.channels), plan.seed, spec.loader.shuffle,
        plan.batch.images, construct(spec.intensity), plan.data.parts,
    )  # fmt: skip
    loader = make_loader(images, MicroBatches(plan.batch, 0, 0, sys.maxsize // 64), spec.loader, False)
    order = images.positions

    def read() -> Iterator[int]:
        for position in itertools.count():
            images.data[order.index(position)]
            yield 1

    def intensity() -> Iterator[int]:
        for position in itertools.count():
            images.read(order.index(position), 0)
            yield 1

    def everything() -> Iterator[int]:
        for views in loader:
            assert not views.unreadable
            yield plan.batch.images

    return {"read": read(), "intensity": intensity(), "all": everything()}


def torchvision_stages(config: dict[str, Any]) -> dict[str, Iterator[int]]:
    """The same with torchvision's v2 transforms: photos decoded by Pillow, uint8 tensors, DINO's crops."""
    import torch

    # A build for GPUs does not find its operators beside a torch for CPUs; the transforms need none of them but their names.
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d"):
        with contextlib.suppress(RuntimeError):
            library.define(f"{name}(Tensor x) -> Tensor")
    from PIL import Image
    from torchvision.transforms import v2

    files = sorted(Path(config["data"]["path"]).iterdir())
    bicubic = {"interpolation": v2.InterpolationMode.BICUBIC, "antialias": True}

    def crop(size: int, area: tuple[float, float], blur: float, solarize: float) -> Callable:
        # DINO's kernel reaches as far as ours: to 3 sigma of 2 pixels.
        return v2.Compose([
            v2.RandomResizedCrop(size, area, **bicubic), v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], 0.8), v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(13, (0.1, 2.0))], blur), v2.RandomSolarize(128, solarize),
            v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ])  # fmt: skip

    crops = [crop(224, (0.4, 1.0), 1.0, 0.0), crop(224, (0.4, 1.0), 0.1, 0.2)] + 8 * [crop(96, (0.05, 0.4), 0.5, 0.0)]

    def decoded(number: int) -> torch.Tensor:
        return v2.functional.pil_to_tensor(Image.open(files[number % len(files)]).convert("RGB"))

    def read() -> Iterator[int]:
        for number in itertools.count():
            decoded(number)
            yield 1

    def everything() -> Iterator[int]:
        for number in itertools.count():
            made = [[one(image) for one in crops] for image in map(decoded, range(8 * number, 8 * number + 8))]
            for view in (slice(0, 2), slice(2, None)):
                torch.stack([crop for views in zip(*(each[view] for each in made)) for crop in views])
            yield 8

    return {"read": read(), "all": everything()}


def serve(file: str, maker: Callable[[dict[str, Any]], dict[str, Iterator[int]]]) -> None:
    """One kind: a stage in, its images a second and the peak memory out."""
    import dinomx_core.training  # noqa: F401, I001 - sets how threads wait, before torch is imported
    import torch

    torch.set_num_threads(1)
    config = json.loads(Path(file).read_text("utf-8"))
    if config["augmentation_module"]:
        __import__(config["augmentation_module"])
    del config["augmentation_module"]
    before = peak()
    work = maker(config)
    for line in sys.stdin:
        if (stage := line.strip()) not in work:
            print("null", flush=True)
            continue
        count, started = 0, time.perf_counter()
        while (seconds := time.perf_counter() - started) < TURN:
            count += next(work[stage])
        print(json.dumps([count / seconds, peak() - before]), flush=True)


def start(kind: str, file: Path, root: Path, more: list[str]) -> subprocess.Popen:
    """The process of a kind, with a checkout's code."""
    paths = os.pathsep.join([*(str(root / name) for name in PACKAGES), *more, os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, __file__, "--serve", kind, str(file)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip


def ask(server: subprocess.Popen, stage: str) -> list[float] | None:
    """Images a second of a stage, and the peak; None where there is no such stage."""
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(f"{stage}\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())


def main(options: argparse.Namespace) -> None:
    """Write the data, let the kinds take turns, print the table."""
    here = Path(__file__).absolute().parent.parent
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        servers: dict[str, subprocess.Popen] = {}
        for number, (name, write) in enumerate(SETS.items()):
            if options.only not in name:
                continue
            folder = Path(temporary) / str(number)
            folder.mkdir()
            config = config_of(write(folder))
            domain = "augmentation" in config
            config["augmentation_module"] = "dinomx_medical_multichannel.augmentation" if domain else ""
            file = folder.with_suffix(".json")
            file.write_text(json.dumps(config), "utf-8")
            servers[name] = start("ours", file, here, [])
            if options.against:
                servers[f"{name}, before"] = start("ours", file, options.against.absolute(), [])
            if options.torchvision and name.startswith(("PNG", "JPEG")):
                servers[TORCHVISION.format(name)] = start("torchvision", file, here, [str(options.torchvision)])
        for server in servers.values():
            stack.callback(server.kill)
        found: dict[str, dict[str, list[list[float]]]] = {name: {stage: [] for stage in STAGES} for name in servers}
        for turn in range(options.rounds + 1):
            for stage, name in itertools.product(STAGES, servers):
                row = ask(servers[name], stage)
                if row and turn:  # the first warms caches
                    found[name][stage].append(row)
    print("| | read | and intensity | all | peak memory |\n|---|---|---|---|---|")
    for name, rows in found.items():
        rates = [statistics.median(rate for rate, _ in rows[stage]) if rows[stage] else None for stage in STAGES]
        told = " | ".join("" if rate is None else f"{rate:.0f}" if rate >= 20 else f"{rate:.1f}" for rate in rates)
        print(f"| {name} | {told} | {rows['all'][-1][1]:.0f} MB |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[3], {"ours": stages, "torchvision": torchvision_stages}[sys.argv[2]])
    else:
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--rounds", type=int, default=ROUNDS)
        parser.add_argument("--only", default="")
        parser.add_argument("--against", type=Path)
        parser.add_argument("--torchvision", type=Path)
        main(parser.parse_args())
