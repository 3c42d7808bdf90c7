"""factors, codes and scales under plain names, for programs of one's own; docs/reference/plain.md has a loader"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from eckart.errors import Refused
from eckart.files.directories import check_target, new_directory
from eckart.jobs.exports._divergence import compared, drawn, logits
from eckart.jobs.exports._factors import Product, factored, made_ordinary, tensors
from eckart.jobs.exports._ordinary import made_dense, own_bias
from eckart.models import transformers as hf
from eckart.models.places import set_module
from eckart.models.tasks import task_of

FILE = "plain.safetensors"


def write(source: str, out: str | Path) -> str:
    """Writes the tensors of a language model so that whoever knows what a product is can compute with them.

    The matrix of a linear map is the sum over t of the products over f of its factors, whose tensors are called
    `MAP.factors.t.f.weight` or, for integers, `MAP.factors.t.f.codes`, `scales`, `zeros` and `levels`. All else has the
    name and the form that it has in the dense model. What is neither product, sum nor integers (zeros left out, blocks,
    transforms), and coded embeddings, become ordinary matrices; no code is written.

    Returns:
        How many matrices kept their form, and the divergence of what is computed from the tensors.

    Raises:
        Refused: a mixture of experts, a matrix that depends on its input, one that the model reads
            instead of calling it, no language model, or `out` is taken.
    """
    check_target(Path(out))
    loaded = hf.load(source)
    model: Any = loaded.model
    if not task_of(model).writes:
        kind = type(model).__name__
        raise Refused(
            f"{source} is a {kind}, and the loader of --to plain makes models that go on with a text: --to dense"
        )
    tokens = drawn(model)
    own = logits(hf.load(source).model.float(), tokens)
    kept = {name: tensors(terms) for name, terms in factored(model, source, "plain").items()}
    rest = made_ordinary(model, kept)
    made_dense(model)
    state = model.state_dict(keep_vars=True)
    once = {id(tensor): name for name, tensor in reversed(state.items())}
    stored = {name: tensor.detach().contiguous() for name, tensor in state.items() if once[id(tensor)] == name}
    for name, parts in kept.items():
        stored.pop(f"{name}.weight")
        stored |= {f"{name}.factors.{part}": tensor for part, tensor in parts.items()}
    with new_directory(Path(out)) as partial:
        save_file(stored, partial / FILE, {"format": "pt"})
        model.config.save_pretrained(partial)
        if loaded.processor is not None:
            loaded.processor.save_pretrained(partial)
        again = load_file(partial / FILE)
        for name, parts in kept.items():
            read = {part: again[f"{name}.factors.{part}"] for part in parts}
            set_module(model, name, Product(name, read, own_bias(model.get_submodule(name))))
        said = compared(own, logits(model.float(), tokens), "plain PyTorch")
    return f"{len(kept)} matrices as factors and codes{rest}; {said}"
