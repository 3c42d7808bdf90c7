"""The products that others have for compressed matrices on a CPU: PyTorch, SciPy, ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

GROUP = 64
Made = tuple[Callable[[Tensor], object], int]


def torch_int4(weight: Tensor) -> Made:
    """`_weight_int4pack_mm_for_cpu`, in bfloat16."""
    codes = torch.randint(16, weight.shape, dtype=torch.int32)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
    scales = torch.rand(weight.shape[1] // GROUP, weight.shape[0], 2).to(torch.bfloat16)
    return lambda x: torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, GROUP, scales), weight.numel() // 2


def torch_int8(weight: Tensor) -> Made:
    """fbgemm's or oneDNN's dynamically quantized linear layer: int8 weights a row, int8 inputs."""
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight
    made: Any = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(layer), {torch.nn.Linear})
    return made, weight.numel()


def scipy_rows(weight: Tensor) -> Made:
    """`scipy.sparse.csr_array`."""
    from scipy import sparse

    matrix = sparse.csr_array(weight.numpy())
    return lambda x: matrix @ x.numpy().T, int(matrix.data.nbytes + matrix.indices.nbytes)


def onnx_dense(weight: Tensor) -> Made:
    """ONNX Runtime's product in float32."""
    return _session("MatMul", {"w": weight.T.contiguous().numpy()}, weight.shape[1], {}), weight.numel() * 4


def onnx_int4(weight: Tensor, accuracy: int) -> Made:
    """ONNX Runtime's `MatMulNBits`; accuracy 1 multiplies in float32, 4 rounds inputs to int8."""
    out, columns = weight.shape
    groups = columns // GROUP
    codes = torch.randint(256, (out, groups, GROUP // 2), dtype=torch.uint8)
    scales = torch.rand(out * groups)
    attributes = {"K": columns, "N": out, "bits": 4, "block_size": GROUP, "accuracy_level": accuracy}
    tensors = {"w": codes.numpy(), "s": scales.numpy()}
    return _session("MatMulNBits", tensors, columns, attributes), codes.numel() + scales.numel() * 4


def _session(op: str, tensors: dict[str, Any], columns: int, attributes: dict[str, int]) -> Callable[[Tensor], object]:
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    domain = "com.microsoft" if attributes else ""
    node = helper.make_node(op, ["x", *tensors], ["y"], domain=domain, **attributes)
    values = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", columns])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph([node], "product", inputs, outputs, values)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")  # or it takes the others' processors
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x.numpy()})
