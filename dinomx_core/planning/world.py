"""Which of how many processes this one is, read from what started it: torchrun, srun, or `dinomx run` itself."""

import re
from collections.abc import Mapping

import attrs

PORT = 20000  # srun's jobs meet at a port from here on, by the job's number
PORTS = 20000
IMAGINED = "--world-size"


@attrs.frozen
class World:
    """`size` processes, of which this is number `rank`; `local_size` of them are on this host, of which this is `local_rank`.

    starter: "torchrun" or "srun", for messages. address: "host:port" where they meet. attempt: how often they were started before.
    """

    size: int
    rank: int
    local_rank: int
    local_size: int
    starter: str
    address: str
    attempt: int = 0

    @property
    def words(self) -> str:
        """Where the number of processes comes from, for messages."""
        return f"{self.starter} {'asks for' if self.imagined else 'started'} {self.size} processes"

    @property
    def imagined(self) -> bool:
        """Whether the processes are only planned with."""
        return self.starter == IMAGINED


def started(environ: Mapping[str, str]) -> World | None:
    """The world that environment variables tell of, or None where this process stands alone."""
    if "WORLD_SIZE" in environ and "RANK" in environ:
        size = int(environ["WORLD_SIZE"])
        return World(
            size,
            int(environ["RANK"]),
            int(environ.get("LOCAL_RANK", environ["RANK"])),
            int(environ.get("LOCAL_WORLD_SIZE", size)),
            "torchrun",
            f"{environ.get('MASTER_ADDR', 'localhost')}:{environ.get('MASTER_PORT', '29500')}",
            int(environ.get("TORCHELASTIC_RESTART_COUNT", 0)),
        )
    if int(environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "SLURM_PROCID" in environ:
        nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST") or "localhost"
        tasks = environ.get("SLURM_STEP_TASKS_PER_NODE", environ["SLURM_STEP_NUM_TASKS"])
        port = PORT + int(environ.get("SLURM_JOB_ID", 0)) % PORTS
        return World(
            int(environ["SLURM_STEP_NUM_TASKS"]),
            int(environ["SLURM_PROCID"]),
            int(environ.get("SLURM_LOCALID", 0)),
            tasks_on(tasks, int(environ.get("SLURM_NODEID", 0))),
            "srun",
            f"{environ.get('MASTER_ADDR') or first_host(nodes)}:{environ.get('MASTER_PORT') or port}",
            int(environ.get("SLURM_RESTART_COUNT", 0)),
        )
    return None


def first_host(nodes: str) -> str:
    """Slurm's list of hosts -> the first: "gpu[07-09,12],big1" -> "gpu07"."""
    match = re.match(r"([^\[,]+)(?:\[(\d+))?", nodes)
    return match[1] + (match[2] or "") if match else nodes


def tasks_on(tasks: str, node: int) -> int:
    """Slurm's numbers of tasks -> that of one host: "4(x2),3" -> 4, 4, 3."""
    counts: list[int] = []
    for part in tasks.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if match:
            counts += [int(match[1])] * int(match[2] or 1)
    return counts[node] if node < len(counts) else max(counts, default=1)
