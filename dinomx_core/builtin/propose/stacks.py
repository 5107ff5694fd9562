"""Whether files of a folder are channels of the same images, by what tells their names apart."""

import os
import re
from collections import defaultdict
from collections.abc import Sequence

import attrs

# Words that name a channel: sequences, tissues, dyes, numbered channels, bands.
CHANNEL = re.compile(
    r"t1|t1c|t1ce|t1gd|t1n|t1w|t2|t2f|t2w|t2star|flair|pd|dwi|adc|swi|bold|gm|wm|csf|pet|ct|dapi|gfp|rfp|cy3|cy5|hoechst|actin|tubulin|nuclei|"
    r"er|rna|agp|mito|dna|brightfield|red|green|blue|yellow|nir|vv|vh|(?:ch|c|w|b|channel|band)\d{1,2}"
)
MASKS = {"mask", "masks", "seg", "segmentation", "label", "labels", "gt"}
WORD = re.compile(r"[^_\-. ]+")
LARGEST = 12  # channels


@attrs.frozen
class Guess:
    """patterns: for the option `stack`; (): the files are images of their own. note: what a person should decide."""

    patterns: tuple[str, ...] = ()
    note: str = ""


def guess_stack(files: Sequence[str]) -> Guess:
    """Channels where every image has the same known ones, and two images at least show it; else a note where it looks like some."""
    words = {word.lower() for file in files for word in WORD.findall(os.path.basename(file))}
    masks = ", ".join(sorted(MASKS & words))
    note = f'some names hold "{masks}": masks would be taken for images; move them elsewhere' if masks else ""
    best: tuple[list[str], int] | None = None
    for place in range(max((len(WORD.findall(os.path.basename(file))) for file in files), default=0)):
        groups: dict[tuple[str, str], set[str]] = defaultdict(set)
        for file in files:
            folder, name = os.path.split(file)
            found = list(WORD.finditer(name))
            if place < len(found):
                word = found[place]
                groups[folder, f"{name[: word.start()]}\0{name[word.end() :]}"].add(pattern(name, word))
        kinds = set(map(frozenset, groups.values()))
        if len(kinds) == 1 and sum(map(len, groups.values())) == len(files):
            patterns = sorted(next(iter(kinds)), key=natural)
            if 2 <= len(patterns) <= LARGEST and all(CHANNEL.fullmatch(bare(p)) for p in patterns):
                best = (patterns, len(groups))
    if best is None:
        return Guess(note=note)
    if best[1] == 1:
        told = f"the names differ in {', '.join(map(bare, best[0]))}: if these are channels of one image, set data.stack = {best[0]}"
        return Guess(note=told.replace("'", '"'))
    return Guess(tuple(best[0]), note)


def pattern(name: str, word: "re.Match[str]") -> str:
    """The word with the marks around it, as the name has it."""
    return name[max(0, word.start() - 1) : word.end() + 1]


def bare(text: str) -> str:
    """The word without its marks, in lower case."""
    return text.strip("_-. ").lower()


def natural(text: str) -> list[tuple[int, str]]:
    """Sorts c2 before c10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]
