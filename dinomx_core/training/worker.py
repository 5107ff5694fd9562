"""What a process does that `dinomx run` or `dinomx embed` has started: `python -m dinomx_core.training.worker FOLDER`."""

import importlib
import json
import os
import signal
import sys
from pathlib import Path

JOB, ALONE = "job.json", "lost-{}"  # the latter of a process that lost the others: what to say


def main(folder: Path) -> int:
    """Run the job in the folder. Returns an exit code: 0 even for errors of ours, which starting again would not help."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever has started this one says when to stop
    (folder / ALONE.format(os.environ["RANK"])).unlink(missing_ok=True)  # of the process that this one stands for
    job = json.loads((folder / JOB).read_text("utf-8"))
    sys.path.extend(entry for entry in job["path"] if entry not in sys.path)
    from dinomx_core import api
    from dinomx_core.errors import DinomxError
    from dinomx_core.planning.plan import Source
    from dinomx_core.planning.world import started
    from dinomx_core.progress import Silent, TextProgress
    from dinomx_core.running import run_here
    from dinomx_core.training.group import no_group_left
    from dinomx_core.training.stopping import FILE
    from dinomx_core.training.watch import LOST, STOP, LostContact, watched

    world = started(os.environ)
    assert world, "not started by the launcher"
    os.environ[FILE] = str(folder / STOP)
    try:
        with no_group_left(), watched(world, folder) as watch:
            plugins = [importlib.import_module(name) for name in job["plugins"]]
            if "embed" in job:
                from dinomx_core.training.embed.job import EmbedJob
                from dinomx_core.training.embed.share import Source as EmbedSource
                from dinomx_core.training.embed.share import share

                embed = EmbedJob(**job["embed"])
                source = EmbedSource(
                    lambda: api.reading_of(embed.source, plugins), lambda: api.model_of(embed.source, plugins)
                )
                share(embed, source, world, watch, None)
                return 0
            quiet = job["quiet"] or world.rank
            plans = api.plans_of(Source(job["text"], job["place"], tuple(job["settings"]), job["command"]), plugins)
            again = world.attempt > 0
            progress = Silent() if quiet else TextProgress()
            if again:
                progress.note(f"a process was lost: all are started again, for the {world.attempt}. time")
            run_here(plans, resume=job["resume"] or again, overwrite=job["overwrite"] and not again, progress=progress)
    except LostContact as error:
        record(error)
        sys.stderr.flush()
        os._exit(LOST)  # leaving in order would wait for the others
    except DinomxError:
        pass  # is in the folder
    return 0


def record(error: Exception) -> None:
    """Let the launcher know of an error after which all processes may be started again."""
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    get_error_handler().record_exception(error)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
