import pytest
from safetensors.torch import load_file

from dinomx_core import Length, Schedule
from dinomx_core.planning.schedule import resolve
from tests.parity.replay import GOLDENS

RECORDED = {
    "cosine_warmup": Schedule(4e-3, start=0.0, end=1e-6, warmup=10),
    "linear_warmup_cosine": Schedule(4e-3, start=0.0, end=1e-5, warmup=10, convention="decay-inclusive"),
    "linear_warmup_cosine_20_then_constant": Schedule(
        4e-3, start=0.0, end=1e-5, warmup=10, decay=20, convention="decay-inclusive"
    ),
}


@pytest.mark.parametrize("name", RECORDED)
def test_schedules_equal_the_reference_codes(name):
    curve = resolve(RECORDED[name], 50, 1.0)
    recorded = load_file(GOLDENS / "losses.safetensors")[f"schedule/{name}"].tolist()
    assert [curve.at(step) for step in range(50)] == pytest.approx(recorded, rel=1e-12, abs=1e-15)


def test_a_held_schedule_changes_only_every_hold_steps():
    curve = resolve(Schedule(0.07, start=0.04, warmup=4, shape="constant", hold=2), 8, 1.0)
    assert [curve.at(step) for step in range(6)] == pytest.approx([0.04, 0.04, 0.07, 0.07, 0.07, 0.07])


def test_linear_and_constant_shapes():
    linear = resolve(Schedule(1.0, end=0.0, shape="linear", convention="decay-inclusive"), 5, 1.0)
    assert [linear.at(step) for step in range(5)] == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])
    assert {resolve(Schedule.constant(0.3), 5, 1.0).at(step) for step in range(5)} == {0.3}


@pytest.mark.parametrize(
    ("written", "steps"),
    [(500, 500), ("500 steps", 500), ("1 step", 1), ("10%", 20), ("2 passes", 15), ("0.5 passes", 4)],
)
def test_lengths_are_steps_shares_or_passes(written, steps):
    assert Length.parse(written).steps(200, 7.5) == steps


@pytest.mark.parametrize("written", [-1, 2.5, True, "ten", "1.5 steps", "10 epochs", None])
def test_other_lengths_are_refused(written):
    with pytest.raises(ValueError, match=r'expected steps \(500\), a share of the run \("10%"\) or passes'):
        Length.parse(written)


def test_a_hold_that_does_not_divide_rounds_lengths_up():
    curve = resolve(Schedule(1.0, end=0.0, warmup=4, shape="linear", hold=3), 12, 1.0)
    assert [round(curve.at(step), 3) for step in range(12)] == [0, 0, 0, 1, 1, 1, 1, 1, 1, 0.667, 0.667, 0.667]
    assert resolve(Schedule(1e-3, end=1e-6, hold=180), 10, 1.0).at(9) == 1e-3
