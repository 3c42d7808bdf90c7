"""ordinary matrices, no eckart needed"""

from __future__ import annotations

from pathlib import Path

from eckart.errors import Refused
from eckart.files.directories import check_target, new_directory
from eckart.jobs.exports._ordinary import made_dense
from eckart.models import transformers as hf
from eckart.models.quantized_input import in_codes


def write(source: str, out: str | Path) -> str:
    """Writes a compressed model with ordinary matrices, which plain transformers loads without eckart.

    A GGUF file, or a directory that others quantized, becomes such a directory too, its codes turned into numbers. Tied
    matrices stay tied, and experts become fused tensors again. The file grows back to the size of the original; what
    was lost stays lost. Biases that compression added are kept where the architecture can have them.

    Raises:
        Refused: `source` has ordinary matrices already, it has biases that its architecture has no place
            for, or `out` is taken.
    """
    check_target(Path(out))
    loaded = hf.load(source)
    if not made_dense(loaded.model) and not in_codes(source):
        raise Refused(f"{source} has no structured matrices; it is dense already")
    with new_directory(Path(out)) as partial:
        loaded.write(partial)
    return ""
