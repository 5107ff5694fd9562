"""What a person sees while a run goes on: one live line on a terminal, plain lines elsewhere."""

import sys
import time
from typing import Any, Protocol, TextIO

from dinomx_core.planning.plan import Plan


class Progress(Protocol):
    """Whoever watches a run."""

    def start(self, plan: Plan) -> None:
        """Called once before the first step."""

    def step(self, row: dict[str, Any]) -> None:
        """Called after each step with its metrics row."""

    def evaluated(self, step: int, figures: dict[str, float]) -> None:
        """Called after each evaluation."""

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

    def close(self) -> None:
        """Nothing."""


def clock(seconds: float) -> str:
    """3725 -> "1:02:05"."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class TextProgress:
    """Steps, loss, images a second and time left; rates are means over the last steps, so that they neither jump nor lag."""

    def __init__(self, out: TextIO | None = None):
        self.out = out or sys.stderr
        self.live = self.out.isatty()

    def start(self, plan: Plan) -> None:
        """Note how many steps there are and how often to speak."""
        self.steps, self.every = plan.steps, max(1, plan.lengths["log.every"])
        self.recent: list[tuple[float, float]] = []
        self.shown = 0.0

    def step(self, row: dict[str, Any]) -> None:
        """Show the step, at most ten times a second on a terminal."""
        self.recent = [*self.recent[-49:], (row["seconds"], row["images_per_second"] * row["seconds"])]
        done, last = row["step"] + 1, row["step"] + 1 == self.steps
        now = time.monotonic()
        if not last and (now - self.shown < 0.1 if self.live else done % self.every and done != 1):
            return
        self.shown = now
        seconds = sum(s for s, _ in self.recent)
        left = seconds / len(self.recent) * (self.steps - done)
        text = (
            f"step {done}/{self.steps}  loss {row['loss']:.4f}  lr {row['lr']:.2e}  "
            f"{sum(n for _, n in self.recent) / seconds:.1f} images/s  {clock(left)} left"
        )
        self._say(text, stay=last)

    def evaluated(self, step: int, figures: dict[str, float]) -> None:
        """One line that stays."""
        what = "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
        self._say(f"step {step}  {what}", stay=True)

    def _say(self, text: str, stay: bool) -> None:
        if self.live:
            self.out.write(f"\r\x1b[2K{text}" + ("\n" if stay else ""))
        else:
            self.out.write(text + "\n")
        self.out.flush()

    def close(self) -> None:
        """Leave the cursor on a line of its own."""
        if self.live:
            self.out.write("\n")
