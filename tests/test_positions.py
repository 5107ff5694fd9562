"""The endless stream that a run draws from: passes, mixtures of parts, and stand-ins."""

from collections import Counter

import pytest
import torch

from dinomx_core import ConfigError, Part, api
from dinomx_core.training.build import build
from dinomx_core.training.positions import Mixture, Positions, positions
from tests import named_planes
from tests.fixtures import rows, stream_of

ALL = (0, 1)


def parts(*pairs, sets=None):
    return [Part(count, weight, ALL if sets is None else sets[n]) for n, (count, weight) in enumerate(pairs)]


def test_every_image_comes_once_a_pass_in_another_order_each():
    stream = Positions(7, 0, True)
    passes = [[stream.index(p) for p in range(n * 7, n * 7 + 7)] for n in range(3)]
    assert all(sorted(found) == list(range(7)) for found in passes) and len({tuple(found) for found in passes}) == 3


def test_a_mixture_draws_by_weight_and_each_part_in_its_own_passes():
    stream = Mixture(parts((100, 1.0), (10, 3.0)), 0, True, 1)
    drawn = [stream.index(p) for p in range(4000)]
    first, second = [i for i in drawn if i < 100], [i - 100 for i in drawn if i >= 100]
    assert abs(len(second) / len(drawn) - 0.75) < 0.01
    for part, count in ((first, 100), (second, 10)):
        for start in range(0, len(part) - count, count):
            assert sorted(part[start : start + count]) == list(range(count))  # a whole pass before the next


def test_a_mixture_is_a_function_of_the_position_alone():
    made = lambda: Mixture(parts((31, 1.0), (17, 2.0), (5, 0.5)), 3, True, 1)  # noqa: E731
    whole = [made().index(p) for p in range(200)]
    jumping, order = made(), torch.randperm(200, generator=torch.Generator().manual_seed(0)).tolist()
    assert {p: jumping.index(p) for p in order} == dict(enumerate(whole))
    assert [Mixture(parts((31, 1.0), (17, 2.0), (5, 0.5)), 4, True, 1).index(p) for p in range(200)] != whole


def test_parts_of_different_channels_take_whole_steps():
    stream = positions(40, 0, True, 4, parts((30, 1.0), (10, 1.0), sets=[(0, 1), (1, 2)]))
    steps = [{stream.index(step * 4 + slot) < 30 for slot in range(4)} for step in range(60)]
    assert all(len(found) == 1 for found in steps)
    assert 25 <= sum(True in found for found in steps) <= 35
    mixed = positions(40, 0, True, 4, parts((30, 1.0), (10, 1.0)))
    assert any(len({mixed.index(step * 4 + slot) < 30 for slot in range(4)}) == 2 for step in range(10))


def test_a_stand_in_is_of_the_same_part():
    stream = Mixture(parts((3, 1.0), (4, 1.0)), 0, True, 1)
    assert [stream.after(5, n) for n in range(5)] == [5, 6, 3, 4, 5] and stream.room(5) == 4
    assert [stream.after(2, n) for n in range(4)] == [2, 0, 1, 2] and stream.room(2) == 3


def test_a_mixture_resumes_bit_identically_whatever_the_workers(toy):
    sources = {"a": {"name": "named", "names": ["x"]}, "b": {"name": "named", "names": ["x"], "count": 9}}
    found = []
    for workers in (0, 2):
        config = toy(
            run={"name": f"w{workers}", "steps": 4, "batch_size": 4},
            data={"name": "mix", "split": None, "sources": sources, "weights": {"a": 1.0, "b": 2.0}},
            loader={"workers": workers},
            augmentation={"mean": [0.5], "std": [0.3]},
        )
        found.append([row["loss"] for row in rows(api.run(config, plugins=[named_planes]).folder / "metrics.jsonl")])
    assert found[0] == found[1]


def test_weights_reach_the_batches(toy):
    sources = {"a": {"name": "named", "names": ["x"], "count": 20}, "b": {"name": "named", "names": ["x"], "count": 20}}
    data = {"name": "mix", "split": None, "sources": sources, "weights": {"a": 1.0, "b": 4.0}}
    plan = api.plan(toy(run={"steps": 20, "batch_size": 8}, data=data), plugins=[named_planes])
    assert plan.data.count == 40
    stream, seen = stream_of(build(plan)), Counter()
    for _ in range(20):
        seen.update((next(stream)[0].index >= 20).tolist())
    assert 0.72 < seen[True] / (seen[True] + seen[False]) < 0.88


@pytest.mark.parametrize(("data", "message"), [
    ({"sources": {}}, "data.sources: names no data set; add [data.sources.NAME] tables"),
    ({"sources": {"a": {"name": "named", "names": ["x"]}}, "weights": {"b": 1.0}}, 'data.weights: "b" is none of the sources a'),
    ({"sources": {"a": {"name": "named", "names": ["x"]}}, "weights": {"a": 0.0}}, "data.weights: must be > 0, got [0.0]"),
    ({"sources": {"a": {"name": "nmed"}}}, 'data.sources.a.name: no dataset is called "nmed"; did you mean "named"?'),
    ({"sources": {"a": {"name": "image-folder", "path": "/none"}}}, 'data.sources.a.path: there is no folder "/none"'),
    (
        {"sources": {"a": {"name": "planes", "channels": 2}, "b": {"name": "planes", "channels": 3}}},
        "data.sources: images of different numbers of channels (a 2, b 3), which have no names to tell them apart",
    ),
])  # fmt: skip
def test_mixtures_that_mean_nothing_are_refused(toy, data, message):
    from dinomx_core.testing import toy as planes

    with pytest.raises(ConfigError) as caught:
        api.plan(toy(data={"name": "mix", "split": None, **data}), plugins=[named_planes, planes])
    assert message in str(caught.value)
