"""Matrices stored as fewer numbers than they have entries: atoms, and what joins them."""

from eckart.layouts.patches import Geometry, geometry_of, patch_of
from eckart.structures.base import KINDS, Cost, Spec, StructuredMatrix, structure
from eckart.structures.binary_coded import BinaryCoded
from eckart.structures.bipolar_input import BipolarInput
from eckart.structures.block_diagonal import BlockDiagonal
from eckart.structures.by_task import ByTask
from eckart.structures.column_sparse import ColumnSparse
from eckart.structures.compose import Chain, Stack, Sum
from eckart.structures.convolve import convolve
from eckart.structures.dense import Dense
from eckart.structures.diagonal import Diagonal, Identity
from eckart.structures.gated import Gated
from eckart.structures.gaussian import Gaussian
from eckart.structures.group_sparse import GroupSparse
from eckart.structures.group_sparse_codes import GroupSparseCodes
from eckart.structures.householder import Householder
from eckart.structures.interleaved import Interleaved
from eckart.structures.interpolative import Interpolative, interpolative_cost
from eckart.structures.kernelized import Kernelized
from eckart.structures.kronecker import Kronecker
from eckart.structures.kronecker_sum import kronecker_sum
from eckart.structures.low_rank import low_rank, low_rank_cost
from eckart.structures.masked import Masked
from eckart.structures.monarch import Monarch
from eckart.structures.permutation import Permutation, Selection
from eckart.structures.quantized import Quantized
from eckart.structures.repeated import Repeated
from eckart.structures.rounded_input import Float8Input, RoundedInput, exact_input, input_bits
from eckart.structures.scaled import Scaled
from eckart.structures.scattered import Scattered
from eckart.structures.scored import Scored
from eckart.structures.semisparse import SemiSparse
from eckart.structures.shared import Shared
from eckart.structures.sparse import Sparse
from eckart.structures.specs import from_spec
from eckart.structures.toeplitz import Circulant, Toeplitz
from eckart.structures.transforms import Cosine, Hadamard
from eckart.structures.transposed import apply_transposed
from eckart.structures.vector_quantized import VectorQuantized

__all__ = [
    "KINDS",
    "BinaryCoded",
    "BipolarInput",
    "BlockDiagonal",
    "ByTask",
    "Chain",
    "Circulant",
    "ColumnSparse",
    "Cosine",
    "Cost",
    "Dense",
    "Diagonal",
    "Float8Input",
    "Gated",
    "Gaussian",
    "Geometry",
    "GroupSparse",
    "GroupSparseCodes",
    "Hadamard",
    "Householder",
    "Identity",
    "Interleaved",
    "Interpolative",
    "Kernelized",
    "Kronecker",
    "Masked",
    "Monarch",
    "Permutation",
    "Quantized",
    "Repeated",
    "RoundedInput",
    "Scaled",
    "Scattered",
    "Scored",
    "Selection",
    "SemiSparse",
    "Shared",
    "Sparse",
    "Spec",
    "Stack",
    "StructuredMatrix",
    "Sum",
    "Toeplitz",
    "VectorQuantized",
    "apply_transposed",
    "convolve",
    "exact_input",
    "from_spec",
    "geometry_of",
    "input_bits",
    "interpolative_cost",
    "kronecker_sum",
    "low_rank",
    "low_rank_cost",
    "patch_of",
    "structure",
]
