"""What an adapter has changed, as factors: the change that is computed, to the last entry."""

import torch

from eckart.jobs.adapt.change import as_low_rank
from eckart.structures import Kernelized


def nearly_tied(seed: int) -> Kernelized:
    """Entries of which many are equal but for rounding, and the limit is among them."""
    draw = torch.Generator().manual_seed(seed)
    left, right = torch.randn(2, 1, 2, generator=draw), torch.randn(2, 1, 2, generator=draw)
    noise = [1e-7 * torch.randn(2, 12, 2, generator=draw) for _ in range(2)]
    return Kernelized(left + noise[0], right + noise[1], torch.tensor([9]), scale=1.0)


def test_a_structure_that_keeps_its_largest_entries_keeps_the_same_ones() -> None:
    differ = 0
    for seed in range(8):
        path = nearly_tied(seed)
        dense = path.to_dense().detach()
        differ += not torch.equal(dense != 0, nearly_tied(seed).double().to_dense() != 0)
        left, right, error = as_low_rank(path, None, 12)
        assert error < 1e-6
        torch.testing.assert_close(left @ right, dense, rtol=0, atol=1e-5 * float(dense.abs().max()))
    assert differ  # or nothing was tested
