"""What a person should hear of a report, in words."""

from collections.abc import Iterator
from typing import Any

from dinomx_core.training.look.subject import Subject

CUT, USED = 0.01, 0.25  # shares that are told: of pixels cut off, and of 0..1 that is used
FAR = 0.5  # standard deviations between the config's mean and the measured one
UNREAD = "cannot be read, or mean nothing to the intensity"


def warnings(report: dict[str, Any], subject: Subject, known_by_name: bool) -> Iterator[str]:
    """Warnings, the weightiest first. known_by_name: what names files may be told."""
    if problems := [str(problem) for problem in subject.problems]:
        told = "; ".join(problems) if known_by_name else f"{len(problems)} problems"
        yield f"`dinomx plan` refuses this config, so what needs the rest of it is left out here: {told}"
    if count := report["unreadable"]["count"]:
        yield f"{count} images or files {UNREAD}; they are named in the report" + (
            "" if known_by_name else " by hashes"
        )
    for name, count in report["duplicates"]["between"].items():
        if count:
            yield f"{count} images of {name} are among the training's pixel for pixel: what is measured with them is too good"
    yield from within(report["duplicates"])
    yield from intensities(report)
    if known_by_name:
        yield from subject.warnings


def within(found: dict[str, Any]) -> Iterator[str]:
    """Of copies in the data set itself."""
    if found["across_groups"]:
        yield f"{found['across_groups']} sets of equal images are of several groups: a split by group does not keep them apart"
    if found["across_classes"]:
        yield f"{found['across_classes']} sets of equal images are of several classes: some labels must be wrong"
    if found["images"] and not found["across_groups"] and not found["across_classes"]:
        yield f"{found['images']} images are copies of others, pixel for pixel"


def intensities(report: dict[str, Any]) -> Iterator[str]:
    """Of what the intensity leaves."""
    if cut := report["cut"]:
        told = [
            f"{share:.1%} of the pixels lie {side} what it shows and become {colour}"
            for side, colour, share in (("below", "black", cut["below"]), ("above", "white", cut["above"])) if share > CUT
        ]  # fmt: skip
        if told:
            yield (
                f"the intensity cuts off: {', '.join(told)}; right for air around a body or an empty background, a loss where something "
                "that matters is that dark or bright: look at the sheet"
            )
    if (middle := report["middle"]) and report["bounded"] and middle[1] - middle[0] < USED:
        yield (
            f"the middle 98% of the pixels use {middle[0]:.2g} to {middle[1]:.2g} of 0..1: pictures are flat, and changes of "
            "brightness weigh too much; choose a narrower range or window, or percentiles"
        )
    suggested, ours = report["suggested"], report["configured"]
    if suggested and ours:
        means = ours["mean"] * (len(suggested["mean"]) // len(ours["mean"]) or 1)
        pairs = list(zip(suggested["mean"], suggested["std"], means))
        if pairs and max(abs(mean - given) / max(std, 1e-6) for mean, std, given in pairs) > FAR:
            yield (
                "augmentation.mean is far from what the pixels have; paste the mean and std below, unless the weights you start from were "
                "trained with others"
            )
