"""PiSSA against the truncated SVD."""

from __future__ import annotations

import torch

from support import hard
from support.adapting import close
from support.starts import begin, layer


def test_what_pissa_freezes_is_nearly_as_small_as_can_be() -> None:
    w = hard.normal(300, 200).float()
    _, product = begin("pissa", layer(w, rank=8))
    rest = torch.linalg.svdvals(w.double())[8:].norm()
    assert float((w.double() - product).norm()) < 1.001 * float(rest)
    assert close(product, begin("pissa", layer(w, rank=8))[1], 1e-12)
