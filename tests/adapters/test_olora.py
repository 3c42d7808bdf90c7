"""OLoRA against the QR decomposition."""

from __future__ import annotations

import pytest
import torch

from support import hard
from support.starts import RANK, begin, factors, layer


@pytest.mark.parametrize("shape", [(12, 20), (20, 12)])
def test_olora_is_the_head_of_the_whole_qr(shape: tuple[int, int]) -> None:
    w = hard.normal(*shape)
    left, right = factors(begin("olora", layer(w))[0])
    q, r = torch.linalg.qr(w)
    torch.testing.assert_close(left, q[:, :RANK])
    torch.testing.assert_close(right, r[:RANK])
