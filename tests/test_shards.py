"""Parts of tensors on disk."""

import pytest
import torch

from dinomx_core.training.contracts import Part
from dinomx_core.training.shards import State, fill, load_state, write_state


class Divided:
    """One of several processes, which holds a stripe of every tensor of two dimensions, uneven where they do not divide."""

    def __init__(self, rank, world_size, dim=0):
        self.rank, self.world_size, self.dim = rank, world_size, dim

    def part(self, tensor):
        if tensor.ndim < 2:
            return Part(tensor, (0,) * tensor.ndim, tuple(tensor.shape))
        side = tensor.shape[self.dim]
        chunk = -(-side // self.world_size)
        low, high = (min(side, chunk * (self.rank + more)) for more in (0, 1))
        offsets = [0] * tensor.ndim
        offsets[self.dim] = low
        return Part(tensor.narrow(self.dim, low, high - low), tuple(offsets), tuple(tensor.shape))


def tensors():
    generator = torch.Generator().manual_seed(0)
    return {
        "wide": torch.randn(7, 5, generator=generator),
        "thin": torch.randn(2, 3, 4, generator=generator).to(torch.bfloat16),
        "bias": torch.randn(5, generator=generator),
        "scalar": torch.tensor(3.0),
        "empty": torch.empty(0, 4),
    }


@pytest.mark.parametrize(("writers", "dim"), [(1, 0), (2, 0), (3, 1), (4, 0), (9, 0)])
@pytest.mark.parametrize(("readers", "other"), [(1, 0), (2, 1), (3, 0), (5, 0)])
def test_any_number_of_processes_reads_what_any_other_wrote(tmp_path, writers, dim, readers, other):
    whole = tensors()
    for rank in range(writers):
        write_state(tmp_path, "student", whole, Divided(rank, writers, dim))
    assert all(torch.equal(tensor, whole[name]) for name, tensor in load_state(tmp_path, "student").items())
    for rank in range(readers):
        fresh = {name: torch.full_like(tensor, 7.0) for name, tensor in whole.items()}
        reader = Divided(rank, readers, other)
        with State(tmp_path, "student") as state:
            assert state.shapes == {name: tuple(tensor.shape) for name, tensor in whole.items()}
            fill(fresh, state, reader)
        for name, tensor in fresh.items():
            part, theirs = reader.part(tensor).tensor, reader.part(whole[name]).tensor
            assert torch.equal(part, theirs), name
            if readers > 1 and part.numel() < tensor.numel():
                assert (tensor == 7.0).any()  # nothing but the part was touched


def test_what_is_not_divided_is_written_once(tmp_path):
    for rank in range(2):
        write_state(tmp_path, "losses", {"center": torch.ones(3)}, Divided(rank, 2))
    assert [file.name for file in tmp_path.iterdir()] == ["losses.safetensors"]


def test_missing_parts_and_other_shapes_are_errors(tmp_path):
    whole = tensors()
    for rank in range(3):
        write_state(tmp_path, "student", whole, Divided(rank, 3))
    (tmp_path / "student.1.safetensors").unlink()
    with State(tmp_path, "student") as state:
        with pytest.raises(KeyError, match="wide is not whole"):
            state.read("wide")
        with pytest.raises(KeyError, match=r"bias is \[5\] there and \[6\] here"):
            fill({"bias": torch.zeros(6)}, state, Divided(0, 1))
    with pytest.raises(FileNotFoundError, match=r"teacher.safetensors is missing"):
        State(tmp_path, "teacher")


def test_a_name_that_another_begins_with_is_another_state(tmp_path):
    one = Divided(0, 1)
    write_state(tmp_path, "distill", {"a": torch.ones(1)}, one)
    write_state(tmp_path, "distill.1x", {"b": torch.ones(1)}, one)
    assert set(load_state(tmp_path, "distill")) == {"a"}
