"""Which number types a machine is slow in. No torch."""

import platform
from collections.abc import Iterator
from pathlib import Path

BF16 = {"amx_bf16", "avx512_bf16", "bf16"}  # flags of CPUs that multiply bfloat16 (x86 and Arm)


def cpu_has_bf16() -> bool | None:
    """Whether this CPU multiplies bfloat16; None where it does not say."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    except OSError:
        return True if (platform.system(), platform.machine()) == ("Darwin", "arm64") else None
    lines = (line for line in text.splitlines() if line.lower().startswith(("flags", "features")))
    flags = set(next(lines, "").partition(":")[2].split())
    return bool(flags & BF16) if flags else None


def slow(precision: str, device: str, bf16: bool | None) -> Iterator[str]:
    """What to warn of; `bf16`: whether the CPU has units for it."""
    if device == "cpu" and precision == "fp16":
        yield "run.precision: fp16 is slow on most CPUs" + (
            "; bf16 needs no loss scaling" if bf16 else "; take float32"
        )
    if device == "cpu" and precision == "bf16" and bf16 is False:
        yield "run.precision: this CPU has no units for bf16 and computes it several times slower than float32; take float32"
