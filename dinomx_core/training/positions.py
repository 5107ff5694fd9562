"""Which image stands at a position of the endless stream that a run draws from. Everything follows from the position's number."""

from collections.abc import Sequence

import torch

from dinomx_core.declare.facts import Part
from dinomx_core.planning.seeds import seed_of


class Positions:
    """A data set as an endless stream: position p is image `order(p // n)[p % n]` of pass p // n."""

    def __init__(self, count: int, seed: int, shuffle: bool, name: str = "order"):
        self.count, self.seed, self.shuffle, self.name = count, seed, shuffle, name
        self._pass, self._order = -1, torch.empty(0, dtype=torch.int64)

    def index(self, position: int) -> int:
        """The image at a position."""
        number, slot = divmod(position, self.count)
        if not self.shuffle:
            return slot
        if number != self._pass:
            generator = torch.Generator().manual_seed(seed_of(self.seed, self.name, number))
            self._pass, self._order = number, torch.randperm(self.count, generator=generator)
        return int(self._order[slot])

    def room(self, first: int) -> int:
        """How many images can stand in for one another."""
        return self.count

    def after(self, first: int, further: int) -> int:
        """The image that stands in after so many from the first on that could not be read."""
        return (first + further) % self.count


class Mixture:
    """Parts of a data set, each drawn from with its own weight and in its own endless order.

    Turns are dealt in rounds: in each one a part has its share of the turns, in an order that follows from the round's number. A turn
    is `unit` positions: one where all parts have the same channels, else a step, so that a batch has one set of channels.
    """

    def __init__(self, parts: Sequence[Part], seed: int, shuffle: bool, unit: int):
        self.parts, self.seed, self.shuffle, self.unit = parts, seed, shuffle, unit
        counts = [part.count for part in parts]
        self.offsets = [sum(counts[:n]) for n in range(len(counts))]
        self.inside = [Positions(c, seed, shuffle, f"order of part {n}") for n, c in enumerate(counts)]
        self.turns = self._shares(max(len(parts), -(-sum(counts) // unit)))
        self._round, self._part, self._before = -1, torch.empty(0), torch.empty(0)

    def _shares(self, total: int) -> list[int]:
        """Turns of each part in a round of about so many: in proportion to the weights, one at the least."""
        weights = [part.weight for part in self.parts]
        return [max(1, round(total * weight / sum(weights))) for weight in weights]

    def index(self, position: int) -> int:
        """The image at a position."""
        turn, slot = divmod(position, self.unit)
        number, place = divmod(turn, sum(self.turns))
        if number != self._round:
            self._deal(number)
        part = int(self._part[place])
        drawn = (number * self.turns[part] + int(self._before[place])) * self.unit + slot
        return self.offsets[part] + self.inside[part].index(drawn)

    def _deal(self, number: int) -> None:
        """The part of each turn of a round, and how many turns it had before in that round."""
        turns = torch.repeat_interleave(torch.arange(len(self.turns)), torch.tensor(self.turns))
        generator = torch.Generator().manual_seed(seed_of(self.seed, "turns", number))
        self._part = turns[torch.randperm(len(turns), generator=generator)]
        self._before = torch.empty_like(self._part)
        for part, count in enumerate(self.turns):
            self._before[self._part == part] = torch.arange(count)
        self._round = number

    def room(self, first: int) -> int:
        """How many images can stand in for one another: those of the same part."""
        return self.parts[self._at(first)].count

    def after(self, first: int, further: int) -> int:
        """The image that stands in after so many from the first on that could not be read."""
        part = self._at(first)
        return self.offsets[part] + (first - self.offsets[part] + further) % self.parts[part].count

    def _at(self, image: int) -> int:
        return max(n for n, offset in enumerate(self.offsets) if offset <= image)


def positions(count: int, seed: int, shuffle: bool, images: int, parts: Sequence[Part]) -> Positions | Mixture:
    """The stream of a data set whose steps have so many images."""
    if not parts:
        return Positions(count, seed, shuffle)
    return Mixture(parts, seed, shuffle, images if len({part.channels for part in parts}) > 1 else 1)
