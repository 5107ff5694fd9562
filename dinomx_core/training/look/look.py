"""`dinomx data`: measures a config's images, draws what the model will see of them, and writes both down."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from dinomx_core.errors import ConfigError, DataError, Problem
from dinomx_core.training.construct import construct
from dinomx_core.training.contracts import Dataset, Intensity
from dinomx_core.training.data import TrainingImages
from dinomx_core.training.look import copies, statistics
from dinomx_core.training.look.measuring import SHOWN, Measured, measure
from dinomx_core.training.look.names import Naming, as_they_are, hashed
from dinomx_core.training.look.page import page
from dinomx_core.training.look.rows import Row, Shown, positions, rows
from dinomx_core.training.look.sheet import sheet
from dinomx_core.training.look.subject import Subject
from dinomx_core.training.look.warning import warnings

DATA, SHEET, PAGE = "data.json", "sheet.png", "index.html"


@attrs.frozen
class Wanted:
    """What is asked for; see `api.measure`."""

    out: Path | None
    images: int
    sheet: int
    channels: tuple[int, ...]
    statistics: Path | None
    pictures: bool
    hash_ids: bool
    progress: Callable[[int, int], None]


def measure_and_draw(subject: Subject, wanted: Wanted) -> dict[str, Any]:
    """Measure, draw, write; what was found is handed back."""
    spec = subject.spec
    wanted = attrs.evolve(
        wanted, pictures=wanted.pictures and spec.report.images, hash_ids=wanted.hash_ids or spec.report.hash_ids
    )
    data: Dataset = construct(spec.data)
    naming = hashed() if wanted.hash_ids else as_they_are
    written = written_statistics(subject, data, wanted)
    intensity: Intensity | None = None if subject.spoilt("intensity") else construct(spec.intensity)
    component, options = spec.intensity.component, spec.intensity.options
    measured = Measured(subject.info, component.channels(options, 1) if intensity else 1, component.bounded(options))
    measure(data, intensity, measured, wanted.images, wanted.progress)
    if not measured.count:
        raise DataError(f"none of {len(data)} images can be read; the first: {measured.faults[0]}")
    report = report_of(subject, measured, len(data), naming, wanted)
    if written:
        report["statistics"] = written
    report["warnings"] = list(warnings(report, subject, not wanted.hash_ids))
    if written and wanted.hash_ids and written["groups"]:
        report["warnings"].append(
            f"{written['file']} names groups as they are, since training finds them by their names"
        )
    report["title"] = (
        f"{report['name']}: {report['dataset']}, intensity {report['intensity']}, augmentation {report['augmentation']}"
    )
    report["rule"] = rule_of(report, channels_of(measured, wanted), measured.names_after)
    drawn: list[Row] = []
    if wanted.pictures and intensity and not subject.spoilt("augmentation"):
        drawn = draw(subject, data, intensity, measured, wanted, naming)
    write(report, drawn, wanted.out or Path("data-report") / spec.run.name)
    return report


def written_statistics(subject: Subject, data: Dataset, wanted: Wanted) -> dict[str, Any]:
    """Write the statistics that are asked for, before an intensity that may need them is built."""
    if wanted.statistics is None:
        return {}
    found = statistics.statistics_of(data, subject.info.channels, subject.spec.intensity.options, wanted.progress)
    statistics.write(wanted.statistics, found)
    return {**found, "groups": len(found["groups"]), "file": str(wanted.statistics)}


def report_of(subject: Subject, measured: Measured, count: int, naming: Naming, wanted: Wanted) -> dict[str, Any]:
    """All figures, with names as they may be told."""
    spec, info = subject.spec, subject.info
    faults = [*info.unreadable, *measured.faults]
    named = [f"{naming(fault)} (run without --hash-ids to read why)" if wanted.hash_ids else fault for fault in faults]
    classes = sorted(measured.labels.items())
    groups = sorted(count for group, count in measured.groups.items() if group)
    augmentation = spec.augmentation
    how = augmentation.component.preprocessing(augmentation.options)
    return {
        "name": spec.run.name, "dataset": spec.data.component.name, "intensity": described(spec.intensity),
        "augmentation": augmentation.component.name, "seed": subject.seed, "count": count, "measured": measured.count,
        "bounded": measured.bounded,
        "unreadable": {"count": len(faults), "at_index": len(info.unreadable), "named": named[:SHOWN]},
        **measured.to_json(),
        "configured": {"mean": list(how.mean), "std": list(how.std)},
        "classes": [
            {"name": naming(info.classes[n]) if n >= 0 else "no label", "images": images} for n, images in classes if info.classes
        ],
        "groups": {"count": len(groups), "min": groups[0] if groups else 0, "max": groups[-1] if groups else 0},
        "duplicates": {
            **copies.within(measured, naming), "between": copies.between(measured, spec.data, subject.others, wanted.images),
        },
    }  # fmt: skip


def described(chosen: Any) -> str:
    """A component with those of its options that are not their defaults."""
    told = []
    for field in attrs.fields(type(chosen.options)):
        value, default = getattr(chosen.options, field.name), field.default
        default = default.factory() if isinstance(default, attrs.Factory) else default  # type: ignore[arg-type]
        if value not in (default, "", []) and isinstance(value, (str, int, float, list)):
            told.append(f"{field.name} = {json.dumps(value)}")
    return chosen.component.name + (f" ({', '.join(told)})" if told else "")


def draw(
    subject: Subject, data: Dataset, intensity: Intensity, measured: Measured, wanted: Wanted, naming: Naming
) -> list[Row]:
    """Rows of the sheet."""
    spec, names = subject.spec, measured.names_after
    histogram = measured.after[0]
    ends = [(0.0, 1.0)] * len(names)
    if not measured.bounded:
        ends = [(histogram.quantile(0.01, n), histogram.quantile(0.99, n)) for n in range(len(names))]
    augmentation = construct(spec.augmentation, len(names))
    images = TrainingImages(
        data, augmentation, subject.seed, spec.loader.shuffle, spec.run.batch_size, intensity, subject.info.parts
    )
    how = spec.augmentation.component.preprocessing(spec.augmentation.options)
    shown = Shown(channels_of(measured, wanted), tuple(ends))
    return list(rows(images, positions(images, wanted.sheet), how, shown, subject.info.classes, naming))


def channels_of(measured: Measured, wanted: Wanted) -> tuple[int, ...]:
    """Which channels are shown. Raises ConfigError for those that there are not."""
    count = len(measured.names_after)
    if over := [number for number in wanted.channels if number >= count]:
        raise ConfigError([Problem(f"there is no channel {over[0]}; they go from 0 to {count - 1}", "--channels")])
    return wanted.channels or tuple(range(min(3, count)))


def rule_of(report: dict[str, Any], channels: tuple[int, ...], names: list[str]) -> str:
    """How channels are shown, in words."""
    if len(channels) == 1:
        shown = f'channel "{names[channels[0]]}" in grey'
    else:
        pairs = zip(("red", "green", "blue"), channels)
        shown = "channels " + ", ".join(f'"{names[channel]}" as {colour}' for colour, channel in pairs)
    scale = "0 is black, 1 white" if report["bounded"] else "the middle 98% of each channel go from black to white"
    left = f", of {len(names)} (see --channels)" if len(names) > len(channels) else ""
    return f"Shown: {shown}{left}; {scale}. Crops as the run sees them at seed {report['seed']}; frames have the colours of their boxes."


def write(report: dict[str, Any], drawn: list[Row], out: Path) -> None:
    """Write the report into a folder; what is left there of an earlier one goes. Raises DataError where that cannot be."""
    report["page"], report["sheet"] = str(out / PAGE), str(out / SHEET) if drawn else ""
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / SHEET).unlink(missing_ok=True)
        if drawn:
            sheet(report["title"], report["rule"], drawn).save(out / SHEET)
        (out / DATA).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
        (out / PAGE).write_text(page(report, drawn), "utf-8")
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror or error}") from None
