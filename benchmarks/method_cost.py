"""What methods cost over DINO alone ("methods": iBOT with KoLeo, Gram), strategies save of whole training ("strategies": LoRA,
freezing), and processes cost and save over one ("parallel"): the same backbone, crops and batch, steps in turn, each variant in
processes of its own that take a block of steps when they are told to.

    python benchmarks/method_cost.py methods|strategies|parallel CONFIG [--set KEY=VALUE ...]

prints for each variant the median seconds a step, its ratio to the first, and the peak memory over what the imports take: of the process
that takes most, and what the plan says; and the bytes of weights, gradients and moments that it holds. Data are made beforehand:
the figures are of forward, backward and update alone.
"""

import contextlib
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROUNDS, BLOCK, WARMUP = 6, 5, 3
METHODS = {
    "dino": ['losses=["dino"]', "loss.dino.masked=false"],
    "dino + ibot + koleo": ['losses=["dino", "ibot", "koleo"]'],
    "dino + gram (teacher's patches)": [
        'losses=["dino", "gram"]', "loss.dino.masked=false", "loss.gram.teacher=ema",
    ],
    "dino + ibot + koleo + gram (larger crops, third network)": [
        'losses=["dino", "ibot", "koleo", "gram"]', "loss.gram.teacher=START", "loss.gram.masked=true", "loss.gram.teacher_view=gram",
        "augmentation.gram.size=LARGER",
    ],
}  # fmt: skip
STRATEGIES = {
    "whole": ["strategies=[]"],
    "lora": ['strategies=["lora"]'],
    "lora, every MLP again": ['strategies=["lora"]', "run.recompute=mlp"],
    "freeze": ['strategies=["freeze"]'],
    "bf16: whole": ["strategies=[]", "run.precision=bf16"],
    "bf16: lora": ['strategies=["lora"]', "run.precision=bf16"],
    "bf16: lora, frozen weights bf16": ['strategies=["lora"]', "run.precision=bf16", "run.frozen_weights=bf16"],
}
PARALLEL = {
    "single": [],
    **{
        f"{name} x {count}{more}": [f"parallelism.name={name}", f"parallelism.processes={count}", *words]
        for name, count, more, words in (
            ("ddp", 2, "", []), ("fsdp", 2, "", []), ("fsdp", 2, ", weights kept", ["parallelism.reshard=false"]),
            ("fsdp", 1, "", []), ("fsdp", 4, "", []),
        )
    },
}  # fmt: skip
SETS = {"methods": METHODS, "strategies": STRATEGIES, "parallel": PARALLEL}


def peak() -> float:
    """Peak memory of this process so far, in MB (Linux; getrusage would tell the parent's where that was larger)."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]


def serve(config: str, overrides: list[str]) -> None:
    """One variant: a line in, a block of steps, a line with its seconds out."""
    import dinomx_core.training  # noqa: F401, I001 - sets how threads wait, before torch is imported
    import torch

    from dinomx_core import api
    from dinomx_core.training.build import build
    from dinomx_core.training.construct import attribute
    from dinomx_core.training.data import MicroBatches, make_loader
    from dinomx_core.training.loop import iter_views, make_images, train_step

    torch.zeros(1)
    plan = api.plan(config, overrides=overrides)
    for chosen in (
        plan.spec.backbone,
        *plan.spec.strategies.values(),
        *plan.spec.losses.values(),
        *plan.spec.heads.values(),
    ):
        attribute(chosen.component)
    before = peak()
    parts = build(plan)
    loader = make_loader(
        make_images(parts), MicroBatches(plan.batch, parts.parallelism.rank, 0, 2), plan.spec.loader, False
    )
    with contextlib.closing(iter_views(loader, parts.device)) as stream:
        batches = [next(stream) for _ in range(2)]
    endless = (batches[number % 2] for number in range(sys.maxsize))
    step = 0
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            started = time.perf_counter()
            train_step(parts, endless, step % plan.steps)
            seconds.append(time.perf_counter() - started)
            step += 1
        learnt = [p for p in parts.student.parameters() if p.requires_grad]
        held = [
            *parts.student.parameters(),
            *(p for p in parts.teacher.network.parameters()),
            *learnt,
            *learnt,
            *learnt,
        ]
        state = sum(parts.parallelism.part(tensor).tensor.nbytes for tensor in held)
        row = {
            "seconds": seconds,
            "memory": peak() - before,
            "planned": plan.cost.memory_bytes / 2**20,
            "state": state / 2**20,
        }
        print(json.dumps(row), flush=True)


def filled(variants: dict[str, list[str]], config: str, overrides: list[str]) -> dict[str, list[str]]:
    """The variants with START, a run's folder, and LARGER, twice the side of the global crops, put in where they stand."""
    from dinomx_core import api

    if not any("START" in change for changes in variants.values() for change in changes):
        return variants
    plan = api.plan(config, overrides=[*overrides, 'losses=["dino"]'])
    larger = str(2 * plan.views[0].size.height)
    start = api.run(config, overrides=[*overrides, 'losses=["dino"]', "run.steps=1", "run.name=start"], overwrite=True)
    put = lambda change: change.replace("START", str(start.folder)).replace("LARGER", larger)  # noqa: E731
    return {name: [put(change) for change in changes] for name, changes in variants.items()}


def start(config: str, sets: list[str]) -> list[subprocess.Popen]:
    """The processes of a variant."""
    count = next((int(word.partition("=")[2]) for word in sets if word.startswith("parallelism.processes=")), 1)
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = str(probe.getsockname()[1])
    world = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    return [
        subprocess.Popen(
            [sys.executable, __file__, "--serve", config, *sets],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **({**world, "RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {})},
        )
        for rank in range(count)
    ]  # fmt: skip


def step(ranks: list[subprocess.Popen], count: int) -> dict[str, Any]:
    """Let a variant take some steps: seconds of the first process, memory of the one that takes most."""
    for rank in ranks:
        assert rank.stdin is not None
        rank.stdin.write(f"{count}\n")
        rank.stdin.flush()
    rows = [json.loads(rank.stdout.readline()) for rank in ranks if rank.stdout is not None]
    return {**rows[0], **{name: max(row[name] for row in rows) for name in ("memory", "planned", "state")}}


def main(variants: dict[str, list[str]], config: str, overrides: list[str]) -> None:
    """Start the variants, let them step in turn, print the table."""
    servers = {}
    for name, words in filled(variants, config, overrides).items():
        servers[name] = start(config, [*overrides, *words])
    seconds: dict[str, list[float]] = {name: [] for name in servers}
    last: dict[str, dict[str, Any]] = {}
    for turn in range(ROUNDS + 1):
        for name, server in servers.items():
            last[name] = step(server, WARMUP if turn == 0 else BLOCK)
            if turn:
                seconds[name].append(statistics.median(last[name]["seconds"]))
    first = next(iter(servers))
    base = seconds[first]
    for name, found in seconds.items():
        ratio = statistics.median(ours / theirs for ours, theirs in zip(found, base))
        row = last[name]
        more, planned = row["memory"] / last[first]["memory"], row["planned"]
        print(
            f"{name:<58} {statistics.median(found):.3f} s a step  x {ratio:.2f}   {row['memory']:6.0f} MB  x {more:.2f}  "
            f"planned {planned:5.0f} MB ({planned / row['memory']:.2f})  state {row['state']:5.0f} MB"
        )
        for rank in servers[name]:
            rank.kill()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], sys.argv[3:])
    elif len(sys.argv) > 2 and sys.argv[1] in SETS:
        main(SETS[sys.argv[1]], sys.argv[2], [word for word in sys.argv[3:] if word != "--set"])
    else:
        sys.exit(__doc__)
