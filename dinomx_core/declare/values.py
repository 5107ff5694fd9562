"""Types for the fields of options classes: lengths, schedules, slots for other components, and documented options."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import attrs

Unit = Literal["steps", "%", "passes"]
LENGTH_TEXT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(steps?|%|pass(?:es)?)\s*")


def as_length(value: object) -> "Length":
    """Converter for options fields: what `Length.parse` reads."""
    return Length.parse(value)


def as_optional_length(value: object) -> "Length | None":
    """The same, where None stays."""
    return None if value is None else Length.parse(value)


@attrs.frozen
class Length:
    """A stretch of a run: optimisation steps, a share of the run, or passes over the training data.

    In TOML: `500`, `"500 steps"`, `"10%"`, `"30 passes"`.
    """

    amount: float
    unit: Unit = "steps"

    @classmethod
    def parse(cls, value: object) -> "Length":
        """Read a TOML value. Raises ValueError when it is neither a whole number of steps nor a text of the three forms."""
        if isinstance(value, Length):
            return value
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return cls(value)
        if isinstance(value, str) and (match := LENGTH_TEXT.fullmatch(value)):
            amount, word = float(match[1]), match[2]
            unit: Unit = "%" if word == "%" else "passes" if word.startswith("pass") else "steps"
            if unit != "steps" or amount.is_integer():
                return cls(amount, unit)
        raise ValueError('expected steps (500), a share of the run ("10%") or passes over the data ("30 passes")')

    def steps(self, total: int, steps_per_pass: float) -> int:
        """Optimisation steps in a run of `total` steps whose data are seen once in `steps_per_pass` steps."""
        scale = {"steps": 1.0, "%": total / 100, "passes": steps_per_pass}[self.unit]
        return round(self.amount * scale)

    def __str__(self) -> str:
        number = f"{self.amount:.0f}" if self.unit == "steps" else f"{self.amount:g}"
        return f"{number}%" if self.unit == "%" else f"{number} {self.unit}"


@attrs.frozen
class Size:
    """Height and width in pixels. In TOML one number for a square, or `[height, width]`."""

    height: int
    width: int

    @classmethod
    def parse(cls, value: object) -> "Size":
        """Read a TOML value. Raises ValueError when it is none of the two forms."""
        if isinstance(value, Size):
            return value
        sides: list[Any] = list(value) if isinstance(value, (list, tuple)) else [value, value]
        if len(sides) == 2 and all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides):
            return cls(*sides)
        raise ValueError(f"expected pixels above 0 (64) or [height, width] ([48, 64]), got {value!r}")

    @property
    def plain(self) -> int | list[int]:
        """As TOML has it."""
        return self.height if self.height == self.width else [self.height, self.width]

    def __iter__(self) -> Iterator[int]:
        return iter((self.height, self.width))

    def __str__(self) -> str:
        return f"{self.height}" if self.height == self.width else f"{self.height} x {self.width}"


def as_size(value: "int | Sequence[int] | Size") -> Size:
    """Converter for fields: what `Size.parse` reads."""
    return Size.parse(value)


def size_option(doc: str, default: Any = attrs.NOTHING) -> Any:
    """A documented field that holds a `Size`; with a default of None, one that may be left out."""
    optional = attrs.converters.optional(as_size)
    return attrs.field(default=default, converter=optional if default is None else as_size, metadata={"doc": doc})


Shape = Literal["cosine", "linear", "constant"]
Convention = Literal["warmup-inclusive", "decay-inclusive"]


@attrs.frozen
class Schedule:
    """A value that changes over the run: linear from `start` to `peak` over `warmup`, then by `shape` from `peak` to `end`.

    In TOML a number alone is a constant; a number that overrides a schedule of the recipe replaces its `peak`.
    The conventions: "warmup-inclusive" (DINO, DINOv2): the last warm-up step has `peak` and the decay
    stops one step short of `end`. "decay-inclusive" (DINOv3): the warm-up stops one step short of `peak` and the decay's
    last step has `end`. After the decay the value stays at `end`.
    """

    peak: float = attrs.field(metadata={"doc": "value at the end of the warm-up"})
    start: float = attrs.field(default=0.0, metadata={"doc": "value at the first step, where there is a warm-up"})
    end: float | None = attrs.field(default=None, metadata={"doc": "value after the decay; left out: `peak`"})
    warmup: Length = attrs.field(default=Length(0), converter=as_length, metadata={"doc": "length of the rise"})
    decay: Length | None = attrs.field(
        default=None,
        converter=as_optional_length,
        metadata={"doc": "length of the way to `end`; left out: the rest of the run"},
    )
    shape: Shape = attrs.field(default="cosine", metadata={"doc": "of the way from `peak` to `end`"})
    convention: Convention = attrs.field(default="warmup-inclusive", metadata={"doc": "which end is exact"})
    extra: float = attrs.field(
        default=0.0,
        validator=lambda instance, attribute, value: not_negative(instance, attribute, value),
        metadata={
            "doc": "a cosine cut short: it would be this share longer than the decay, and is scaled to reach `end` at the cut"
        },
    )
    hold: Length = attrs.field(default=Length(1), converter=as_length, metadata={"doc": "steps between two changes"})

    @classmethod
    def constant(cls, value: float) -> "Schedule":
        """The same value at every step."""
        return cls(peak=float(value), start=float(value), end=float(value), shape="constant")


def as_schedule(value: "float | Schedule") -> Schedule:
    """Converter for options fields: a number becomes a constant schedule."""
    return value if isinstance(value, Schedule) else Schedule.constant(value)


@attrs.frozen
class Chosen:
    """A component picked by a table of the config: its declaration, its own options and those common to its kind."""

    label: str
    component: Any  # the `Component` of the slot's kind
    options: Any
    frame: Any = None


def option(
    default: Any = attrs.NOTHING, doc: str = "", *, check: Callable[..., Any] | None = None, deprecated: str = ""
) -> Any:
    """A documented field of an options class.

    `doc` goes into the generated reference; `check` is an attrs validator such as `attrs.validators.gt(0)`, run when the
    config is read so that a bad value is reported with its file and line; `deprecated` says what to use instead, where it will go.
    """
    metadata = {"doc": doc, "deprecated": deprecated}
    if isinstance(default, Schedule):
        return attrs.field(default=default, metadata=metadata, validator=check, converter=as_schedule)
    if isinstance(default, Length):
        return attrs.field(default=default, metadata=metadata, validator=check, converter=as_length)
    if isinstance(default, (list, dict)):
        copy = default
        return attrs.field(factory=lambda: type(copy)(copy), metadata=metadata, validator=check)
    return attrs.field(default=default, metadata=metadata, validator=check)


REQUIRED = object()


def slot(kind: str, default: str | None | object = REQUIRED, doc: str = "") -> Any:
    """A field that holds another component: its table names one of `kind` and gives that component's options.

    `default` is the component used when the table is left out; None leaves the field None. Annotate it with `Chosen`.
    """
    metadata = {"doc": doc, "slot": kind, "slot_default": default}
    return attrs.field(default=attrs.NOTHING if default is REQUIRED else None, metadata=metadata)


def slots(kind: str, doc: str = "") -> Any:
    """A field that holds several components by labels of the user's: a table for each. Annotate it with `dict[str, Chosen]`."""
    return attrs.field(factory=dict, metadata={"doc": doc, "slots": kind})


def positive(instance: Any, attribute: Any, value: Any) -> None:
    """attrs validator: a number above 0, or a list of such numbers."""
    for number in value if isinstance(value, (list, tuple)) else [value]:
        if not number > 0:
            raise ValueError(f"must be > 0, got {value!r}")


def positive_values(instance: Any, attribute: Any, value: dict[str, float]) -> None:
    """attrs validator: a table of numbers above 0."""
    positive(instance, attribute, list(value.values()))


def fraction(instance: Any, attribute: Any, value: Any) -> None:
    """attrs validator: a number, or a list of numbers, between 0 and 1."""
    for number in value if isinstance(value, (list, tuple)) else [value]:
        if not 0 <= number <= 1:
            raise ValueError(f"must be between 0 and 1, got {value!r}")


def schedule_of(check: Callable[..., Any]) -> Callable[..., Any]:
    """attrs validator: `check` holds at the start, peak and end of a schedule."""

    def checked(instance: Any, attribute: Any, value: Schedule) -> None:
        used = {"peak": value.peak, "end": value.peak if value.end is None else value.end}
        if value.warmup.amount:
            used["start"] = value.start
        for name, number in used.items():
            try:
                check(instance, attribute, number)
            except ValueError as error:
                raise ValueError(f"{name} {error}" if number != value.peak else str(error)) from None

    return checked


def not_negative(instance: Any, attribute: Any, value: Any) -> None:
    """attrs validator: a number, or a list of numbers, of 0 or more."""
    for number in value if isinstance(value, (list, tuple)) else [value]:
        if not number >= 0:
            raise ValueError(f"must be 0 or more, got {value!r}")


def below_one(instance: Any, attribute: Any, value: float) -> None:
    """attrs validator: a probability that is not certain."""
    if not 0 <= value < 1:
        raise ValueError(f"must be 0 or more and less than 1, got {value}")


def not_empty(remedy: str) -> Callable[..., Any]:
    """attrs validator: some text; `remedy` says what to do where there is none."""

    def checked(instance: Any, attribute: Any, value: str) -> None:
        if not value:
            raise ValueError(f"is empty; {remedy}")

    return checked


def share_range(instance: Any, attribute: Any, value: list[float]) -> None:
    """attrs validator: [smallest, largest] share of a whole."""
    if len(value) != 2 or not 0 < value[0] <= value[1] <= 1:
        raise ValueError(f"must be [smallest, largest] with 0 < smallest <= largest <= 1, got {value}")


def range_pair(instance: Any, attribute: Any, value: list[float]) -> None:
    """attrs validator: nothing, or [low, high]."""
    if value and (len(value) != 2 or not value[0] < value[1]):
        raise ValueError(f"must be [low, high] with low < high, got {value}")


def ordered_pair(instance: Any, attribute: Any, value: list[float]) -> None:
    """attrs validator: [smallest, largest], above 0."""
    if len(value) != 2 or not 0 < value[0] <= value[1]:
        raise ValueError(f"must be [smallest, largest] with 0 < smallest <= largest, got {value}")
