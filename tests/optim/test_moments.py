"""Moments in 8 bits: how far off a code is, that means are kept, and that nothing is divided by a zero that was not."""

from __future__ import annotations

import torch

from eckart.optim._moments import (
    FINENESS,
    LEAST_SHARE,
    PIECE,
    coded,
    decode,
    decoded,
    encode,
    encode_squares,
)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_codes_are_neighbours_and_keep_shape_sign_and_zero() -> None:
    x = torch.randn(37, 53, generator=generator()) * torch.logspace(-3, 3, 53)
    x[5] = 0
    codes, largest = encode(x, generator())
    assert (codes.shape, codes.dtype) == (x.shape, torch.int8)
    found = decode(codes, largest)
    inside = x.abs() > 1e-6 * largest.max()
    assert float((found / x)[inside].log().abs().max()) < 16 / 126 + 1e-4
    assert torch.equal(found[5], x[5])
    squares = decode(*encode_squares(x.square(), generator()))
    assert float((squares / x.square())[inside].log().abs().max()) < 32 / 254 + 1e-4
    assert torch.equal(squares == 0, x == 0)
    tiny = torch.tensor([1.0, 1e-30, 0.0])
    assert (decode(*encode_squares(tiny, generator())) > 0).tolist() == [True, True, False]


def test_means_are_kept() -> None:
    x = torch.rand(1, 256, generator=generator()).expand(1000, 256).contiguous()
    for encoding in (encode, encode_squares):
        mean = decode(*encoding(x, generator())).mean(0)
        torch.testing.assert_close(mean, x[0], rtol=0.02, atol=1e-3)


def test_what_is_below_the_least_keeps_its_mean_and_the_largest_its_value() -> None:
    x = torch.zeros(2000, 256)
    x[:, 0], x[:, 1:] = -3.0, torch.tensor(3 * LEAST_SHARE * 0.3)
    found = decode(*encode(x, generator()))
    assert (found[:, 0] == -3).all()
    assert abs(float(found[:, 1:].double().mean() / x[0, 1].double()) - 1) < 0.02


def test_pieces_are_blocks_side_by_side() -> None:
    x = torch.randn(PIECE + 1000, generator=generator()) * torch.logspace(-2, 2, PIECE + 1000)
    for encoding, source in ((encode, x), (encode_squares, x.square())):
        codes, largest = encoding(source, generator())
        blocks = torch.nn.functional.pad(source, (0, -len(x) % 256)).view(-1, 256)
        torch.testing.assert_close(largest, blocks.abs().amax(1, keepdim=True), rtol=0, atol=0)
        found = decode(codes, largest)
        inside = source.abs() > 1e-6 * largest.repeat_interleave(256)[: len(x)]
        assert float((found / source)[inside].log().abs().max()) < FINENESS + 1e-4
    assert encode(x[:0], generator())[1].shape == (0, 1)


def test_a_slow_average_follows_and_its_roots_are_off_by_a_seventh() -> None:
    source = generator()
    scale = torch.logspace(-3, 0, 1024)
    exact = rounded = torch.zeros(1024)
    for step in range(1500):
        square = (torch.randn(1024, generator=source) * scale).square()
        exact = 0.999 * exact + 0.001 * square
        drawing = torch.Generator().manual_seed(1_000_003 - step)  # anew in every step, as optimizers do
        rounded = decode(*encode_squares(0.999 * rounded + 0.001 * square, drawing))
    ratio = (rounded / exact).sqrt()
    assert abs(float(ratio.mean()) - 1) < 0.03
    assert 0.1 < float(ratio.std()) < 0.18


def test_a_state_is_coded_in_place_and_back() -> None:
    x = torch.randn(64, 64, generator=generator())
    state = {"m": x, "v": x.square(), "few": x[:2], "basis": x}
    coded(state, ("m", "few"), ("v",), generator())
    assert sorted(state) == ["basis", "few", "m_codes", "m_largest", "v_codes", "v_largest"]
    decoded(state, torch.float64)
    assert sorted(state) == ["basis", "few", "m", "v"]
    assert state["m"].dtype == torch.float64
    torch.testing.assert_close(state["m"].float(), x, rtol=0.15, atol=1e-6)
