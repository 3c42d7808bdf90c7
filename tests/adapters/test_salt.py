"""SALT: a scaled and shifted head of the spectrum, and a low-rank tail."""

from __future__ import annotations

import torch

from eckart.jobs.adapt.bases import dense_of
from support.adapting import adapted, ids, logits, train
from support.tiny import tiny_llama


def test_salt_is_the_identity_at_the_start_and_keeps_its_parts_apart() -> None:
    model = tiny_llama()
    before = logits(model, ids())
    adapter = adapted(model, "salt")
    assert torch.equal(logits(model, ids()), before)
    assert set(adapter.errors.values()) == {0.0}
    train(model, adapter, steps=8)
    for place in adapter.places.values():
        u, _, vh = torch.linalg.svd(dense_of(place.base).double(), full_matrices=False)
        core = u.T @ place.path().to_dense().detach().double() @ vh.T
        top, size = core[:4, :4], core.abs().max()
        assert float(top.diagonal().abs().max()) > 1e-3
        assert float((top - top.diagonal().diag()).abs().max()) < 1e-5 * size
        assert float(torch.maximum(core[:4, 4:].abs().max(), core[4:, :4].abs().max())) < 1e-5 * size
        assert float(core[4:, 4:].abs().max()) > 1e-3
