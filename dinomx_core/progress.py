"""What a person sees while a run goes on: a live bar on a terminal, plain lines elsewhere."""

import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TextIO

from dinomx_core.declare.figures import judged
from dinomx_core.planning.plan import Plan

RECENT = 50  # steps that the shown rate is the mean of, so that it neither jumps nor lags


class Progress(Protocol):
    """Whoever watches a run."""

    def start(self, plan: Plan) -> None:
        """Called once before the first step."""

    def step(self, row: dict[str, Any]) -> None:
        """Called after each step with its metrics row."""

    def evaluated(self, step: int, figures: dict[str, float]) -> None:
        """Called after each evaluation."""

    def note(self, text: str) -> None:
        """Called with a line that a person should see: loaded weights, a verdict, an image that cannot be read."""

    def close(self) -> None:
        """Called when the run ends, however it ends."""


class Silent:
    """Watches nothing."""

    def start(self, plan: Plan) -> None:
        """Nothing."""

    def step(self, row: dict[str, Any]) -> None:
        """Nothing."""

    def evaluated(self, step: int, figures: dict[str, float]) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def clock(seconds: float) -> str:
    """3725 -> "1:02:05"."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def counter(what: str) -> Callable[[int, int], None]:
    """A function of (done, total) that keeps one line on a terminal up to date and says nothing elsewhere."""

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done}/{total} {what}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return show


def shown(figures: dict[str, float]) -> Iterator[tuple[str, float]]:
    """Figures without those that are a part of another ("dense-knn/iou/3")."""
    for name, value in figures.items():
        if not judged(name) or name.count("/") < 2:
            yield name, value


class TextProgress:
    """Step, loss, learning rate, images a second and time left, and a line that stays for each evaluation."""

    def __init__(self, out: TextIO | None = None):
        self.out = out or sys.stderr
        self.bar: Any = None
        self.steps, self.every = 0, 1
        self.recent: deque[tuple[float, float]] = deque(maxlen=RECENT)

    def start(self, plan: Plan) -> None:
        """Note how many steps there are and how often to speak; on a terminal, start the bar."""
        self.steps, self.every = plan.steps, max(1, plan.lengths["log.every"])
        if self.out.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(None), TextColumn("{task.description}"))
            self.bar = Bar(*columns, console=Console(file=self.out), expand=True)
            self.task = self.bar.add_task("starting", total=plan.steps)
            self.bar.start()

    def step(self, row: dict[str, Any]) -> None:
        """Show the step."""
        self.recent.append((row["seconds"], row["images_per_second"] * row["seconds"]))
        done = row["step"] + 1
        seconds, images = (sum(values) for values in zip(*self.recent))
        left = clock(seconds / len(self.recent) * (self.steps - done))
        text = f"loss {row['loss']:.4f}  lr {row['lr']:.2e}  {images / seconds:.1f} images/s  {left} left"
        if self.bar:
            self.bar.update(self.task, completed=done, description=text)
        elif done % self.every == 0 or done in (1, self.steps):
            print(f"step {done}/{self.steps}  {text}", file=self.out, flush=True)

    def evaluated(self, step: int, figures: dict[str, float]) -> None:
        """The figures, and what is told beside them, but no parts of figures."""
        self.note(f"step {step}  " + "  ".join(f"{name} {value:.4f}" for name, value in shown(figures)))

    def note(self, text: str) -> None:
        """One line that stays."""
        if self.bar:
            self.bar.console.print(text, highlight=False)
        else:
            print(text, file=self.out, flush=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self.bar:
            self.bar.stop()
