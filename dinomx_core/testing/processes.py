"""Processes that stay together over many checks: each call runs a function on all of them and returns what each gave."""

import importlib
import multiprocessing
import os
import socket
import time
import traceback
from multiprocessing import connection
from typing import Any


class Group:
    """`size` processes that form one process group on this machine's CPUs."""

    def __init__(self, size: int):
        self.size = size
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port = probe.getsockname()[1]
        context = multiprocessing.get_context("spawn")
        self.members: list[tuple[Any, Any]] = []
        for rank in range(size):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(rank, size, port, theirs), daemon=True)
            process.start()
            self.members.append((process, ours))

    def __call__(self, function: str, *arguments: Any, timeout: float = 120) -> list[Any]:
        """Run "module:function" with arguments on every process. Raises when one of them does, or takes longer than `timeout` s."""
        for _, pipe in self.members:
            pipe.send((function, arguments))
        results: dict[int, Any] = {}
        end = time.monotonic() + timeout
        ranks: dict[Any, int] = {pipe: rank for rank, (_, pipe) in enumerate(self.members)}
        while len(results) < self.size:
            ready: list[Any] = connection.wait(
                [pipe for pipe, rank in ranks.items() if rank not in results], end - time.monotonic()
            )
            if not ready:
                self.close()
                raise TimeoutError(
                    f"ranks {sorted(set(range(self.size)) - set(results))} gave nothing within {timeout} s"
                )
            for pipe in ready:
                good, results[ranks[pipe]] = pipe.recv()
                if not good:
                    self.close()
                    raise RuntimeError(f"rank {ranks[pipe]}: {results[ranks[pipe]]}")
        return [results[rank] for rank in range(self.size)]

    def close(self) -> None:
        """End them."""
        for process, _ in self.members:
            process.kill()
        self.members = []


def serve(rank: int, size: int, port: int, pipe: Any) -> None:
    """What one of them does."""
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(size),
        MASTER_ADDR="localhost", MASTER_PORT=str(port), HF_HUB_OFFLINE="1", TORCH_CPP_LOG_LEVEL="ERROR",
    )  # fmt: skip
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        module, _, name = function.partition(":")
        try:
            result: Any = True, getattr(importlib.import_module(module), name)(*arguments)
        except BaseException as error:
            result = False, "".join(traceback.format_exception(error))
        pipe.send(result)


_groups: dict[int, Group] = {}


def group(size: int) -> Group:
    """The group of that size, which lives as long as this process; a fresh one where the last was closed by a failure."""
    if size not in _groups or not _groups[size].members:
        _groups[size] = Group(size)
    return _groups[size]
