"""a graph, model.onnx, as onnxruntime runs it: tokens to logits, without a cache of keys and values"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused, abridged
from eckart.files.directories import check_target, new_directory
from eckart.jobs.exports._divergence import compared, drawn, logits
from eckart.jobs.exports._factors import Product, factored, made_ordinary, tensors
from eckart.jobs.exports._ordinary import made_dense, own_bias
from eckart.jobs.exports.contract import missing_module
from eckart.models import transformers as hf
from eckart.models.places import set_module
from eckart.structures import Quantized

FILE = "model.onnx"
NEEDED = ("onnx", "onnxscript", "onnxruntime")
BLOCKS = (256, 128, 64, 32, 16)
"""Inputs that may share a scale in `MatMulNBits`."""
LARGEST = 2**30
"""Bytes of tensors from which on they stand in a file of their own: a graph has 2 GiB at most."""


def write(source: str, out: str | Path) -> str:
    """Writes a language model as a graph of ONNX: `input_ids` (batch, sequence) to `logits`, and its tokenizer.

    Integers with scales become `MatMulNBits` of 4 or 8 bits (domain com.microsoft, which onnxruntime has) where their
    groups are powers of two from 16 on, or whole rows; factors stay factors. All else, embeddings too, becomes numbers
    of 32 bits, whatever the dtype of the model. Sequences in a batch are of one length.

    Returns:
        How many matrices kept their form, and the divergence of what onnxruntime computes.

    Raises:
        Refused: packages are missing (eckart[onnx]), torch cannot trace the model, a mixture of experts, a matrix that
            depends on its input, or `out` is taken.
    """
    check_target(Path(out))
    if missing := [package for package in NEEDED if importlib.util.find_spec(package) is None]:
        raise Refused(
            f"ONNX is written and checked by packages, and {missing[0]} is missing: pip install 'eckart[onnx]'"
        )
    loaded = hf.load(source)
    model: Any = loaded.model.float()
    tokens = drawn(model)
    own = logits(model, tokens)
    kept = factored(model, source, "onnx")
    rest = made_ordinary(model, kept)
    made_dense(model)
    coded = 0
    for name, terms in kept.items():
        product = _Product(name, tensors(terms), own_bias(model.get_submodule(name)))
        for t, term in enumerate(terms):
            for f, factor in enumerate(term):
                if isinstance(factor, Quantized):
                    coded += product.multiply_codes(f"{t}_{f}_", factor)
        set_module(model, name, product)
    with new_directory(Path(out)) as partial:
        _export(model, partial / FILE)
        model.config.save_pretrained(partial)
        if loaded.processor is not None:
            loaded.processor.save_pretrained(partial)
        session = importlib.import_module("onnxruntime").InferenceSession(str(partial / FILE))
        given = torch.from_numpy(session.run(["logits"], {"input_ids": tokens.numpy()})[0][0])
        said = compared(own, given.double(), "onnxruntime")
    return f"{len(kept)} matrices as factors and codes{rest}, {coded} products by codes as they are; {said}"


class _Product(Product):
    """A `Product` that multiplies by codes as an operator of onnxruntime does, where that has their grid."""

    def __init__(self, name: str, parts: dict[str, Tensor], bias: Tensor | None) -> None:
        super().__init__(name, parts, bias)
        self.attributes: dict[str, dict[str, Any]] = {}

    def multiply_codes(self, factor: str, matrix: Quantized) -> bool:
        """Has the codes of a factor multiplied as they are; returns False where the operator has no such grid.

        Numbers take the place of the codes then. Else the tensors become those of the operator:

        Codes (out, blocks, block * bits / 8), the first in the lowest bits; scales (out, blocks); zero-points
        (out, ceil(blocks * bits / 8)), packed as codes are.
        """
        whole = matrix.group >= matrix.columns
        block = next((size for size in BLOCKS if whole or matrix.group % size == 0), None)
        for name in ("codes", "scales", "zeros", "levels"):
            self._buffers.pop(f"{factor}{name}", None)
        if block is None or matrix.codebook is not None:
            self.register_buffer(f"{factor}weight", matrix.to_dense().detach())
            return False
        out, bits = matrix.shape[0], 4 if matrix.bits <= 4 else 8
        count = -(-matrix.columns // block)
        codes = nn.functional.pad(matrix.unpacked(), (0, count * block - matrix.columns))
        places = torch.arange(count) * block // matrix.group
        middle = torch.full(matrix.scales.shape, 1 << (matrix.bits - 1), dtype=torch.uint8)
        zeros = (middle if matrix.zeros is None else matrix.zeros)[:, places]
        self.register_buffer(f"{factor}codes", _bytes(codes, bits).view(out, count, -1))
        self.register_buffer(f"{factor}scales", matrix.scales.detach()[:, places].flatten())
        self.register_buffer(f"{factor}zeros", _bytes(zeros, bits).flatten())
        self.attributes[factor] = {"K": matrix.columns, "N": out, "bits": bits, "block_size": block}
        return True

    def times(self, x: Tensor, factor: str) -> Tensor:
        if factor not in self.attributes:
            return super().times(x, factor)
        attributes = self.attributes[factor]
        return torch.onnx.ops.symbolic(
            "com.microsoft::MatMulNBits",
            [x, *(self._buffers[f"{factor}{name}"] for name in ("codes", "scales", "zeros"))],
            attributes,
            dtype=x.dtype,
            shape=(*x.shape[:-1], attributes["N"]),
            version=1,
        )


class _Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Any:
        return self.model(input_ids=input_ids, use_cache=False).logits


def _export(model: nn.Module, file: Path) -> None:
    """Traces a model and writes the graph.

    Raises:
        Refused: torch cannot trace it.
        ModuleNotFoundError: it lacks a package for that.
    """
    any_size = torch.export.Dim.DYNAMIC
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _Logits(model).eval(),
                (torch.zeros(2, 8, dtype=torch.long),),
                input_names=["input_ids"],
                output_names=["logits"],
                dynamic_shapes=({0: any_size, 1: any_size},),
                dynamo=True,
                verbose=False,
            )
    except Refused:
        raise
    except Exception as error:  # the tracer raises whatever the model does
        if missing := missing_module(error):
            raise missing from None
        first: BaseException = error
        while first.__cause__ is not None:
            first = first.__cause__
        raise Refused(
            f"torch cannot trace a {type(model).__name__} for ONNX ({abridged(first, 300)}): export --to dense"
        ) from error
    assert program is not None  # a path was not given
    program.save(file, external_data=size > LARGEST)


def _bytes(codes: Tensor, bits: int) -> Tensor:
    """Codes (rows, n), uint8, of 4 bits two in a byte, the first in the lower half; of 8 as they are."""
    if bits == 8:
        return codes
    pairs = nn.functional.pad(codes, (0, codes.shape[1] % 2)).view(len(codes), -1, 2)
    return pairs[..., 0] | pairs[..., 1] << 4
