"""Products of a network's Jacobian by its parameters: J J^T in tiles, by three routes, without J where it can be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, jvp, vjp, vmap

from eckart.errors import Refused

Route = Literal["auto", "layers", "jacobian", "products"]
Outputs = Literal["mean", "sum", "all"] | int
Pair = tuple[Tensor, Tensor]
"""Of one layer: its inputs A (n, s, a), and the gradients G (n, s, ..., g) at its outputs, of s places or calls."""
TYING = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)


def gram_of_layers(x: Sequence[Pair], z: Sequence[Pair]) -> Tensor:
    """sum over layers of sum_st (a_s . a'_t) (g_s . g'_t): the product of gradients of linear layers, none formed.

    The gradient by a weight W of a layer is sum_s g_s a_s^T, so that of two inputs multiply to the product of two
    small Gram matrices.

    Args:
        x: layers of n inputs; G (n, s, g).
        z: the same layers of m inputs.

    Returns:
        (n, m).
    """
    found: Tensor | None = None
    for (a, g), (b, h) in zip(x, z, strict=True):
        if a.shape[1] == b.shape[1] == 1:
            term = (a[:, 0] @ b[:, 0].T) * (g[:, 0] @ h[:, 0].T)
        else:
            term = torch.einsum(
                "nsmt,nsmt->nm", torch.einsum("nsa,mta->nsmt", a, b), torch.einsum("nsg,mtg->nsmt", g, h)
            )
        found = term if found is None else found + term
    if found is None:
        raise Refused("there is no layer to take gradients of")
    return found


def columns_of_layers(x: Sequence[Pair]) -> tuple[Tensor, Callable[[int], Tensor]]:
    """The diagonal (n,) and the columns i -> (n,) of `gram_of_layers`, for `pivoted_cholesky`."""

    def column(i: int) -> Tensor:
        return gram_of_layers(x, [(a[i : i + 1], g[i : i + 1]) for a, g in x])[:, 0]

    diagonal = torch.zeros(len(x[0][0]), dtype=x[0][0].dtype, device=x[0][0].device)
    for a, g in x:
        if a.shape[1] == 1:
            diagonal += a[:, 0].square().sum(1) * g[:, 0].square().sum(1)
        else:
            diagonal += ((a @ a.mT) * (g @ g.mT)).sum((1, 2))
    return diagonal, column


def jacobian_gram(
    module: nn.Module,
    x: Tensor,
    z: Tensor | None = None,
    *,
    names: Sequence[str] | None = None,
    outputs: Outputs = "mean",
    route: Route = "auto",
    tile: int = 64,
) -> Tensor:
    """J(x) J(z)^T over parameters of a module, the mean over its outputs, or of all pairs of them.

    Routes: "layers" takes inputs and output gradients of each `nn.Linear`, O((n + m) o) passes and no gradient of a
    parameter, and needs all parameters to be theirs; "jacobian" holds the Jacobians of two tiles of inputs, O(tile o P)
    numbers; "products" takes a gradient for each column and a product J v with all x for it, O(P) numbers, m o passes.
    "auto" is layers where it can be, else jacobian.

    Args:
        module: (n, ...) -> (n,) or (n, o), each output depending on its own input.
        x: n inputs.
        z: m inputs; x where it is None.
        names: of the parameters; all that require gradients where it is None.
        outputs: "mean", "sum" (of sum_o f_o / sqrt(o)), "all", or the number of one.
        route: see above.
        tile: inputs at once.

    Returns:
        (n, m), or (n, m, o, o) for "all".

    Raises:
        Refused: unknown names or outputs, layers that tie inputs, or a route that the parameters do not allow.
    """
    chosen = _parameters(module, names)
    if tile < 1 or route not in ("auto", "layers", "jacobian", "products"):
        raise Refused(
            f"tile={tile}, route={route!r}: at least one input at once, by auto, layers, jacobian or products"
        )
    linear = _linear_layers(module, chosen)
    if route == "layers" and linear is None:
        raise Refused("route='layers' needs all parameters to be of nn.Linear: take route='jacobian'")
    with torch.no_grad():
        width = _width(module(x[:1]))
    mix = _mixed(outputs, width, next(iter(chosen.values())))
    other, every = x if z is None else z, outputs == "all"
    layers = _all_layers(module, linear, (x, other), mix, tile) if linear and route in ("auto", "layers") else None
    if layers is not None:
        first, second = layers
        return torch.cat([torch.cat([_contracted(mine, theirs, every) for theirs in second], 1) for mine in first])
    if route == "layers":
        raise Refused("a linear layer sees another number of rows than there are inputs: take route='jacobian'")
    if route == "products":
        found = _by_products(module, chosen, x, other, mix)
        return found if every else found.diagonal(dim1=2, dim2=3).mean(2)
    equation, scale = ("nop,mqp->nmoq", 1) if every else ("nop,mop->nm", 1 / mix.shape[1])
    rows = []
    for mine in _tiles(x, tile):
        j = _jacobian(module, chosen, mine, mix)
        each = (_jacobian(module, chosen, theirs, mix) for theirs in _tiles(other, tile))
        rows.append(torch.cat([torch.einsum(equation, j, h) * scale for h in each], 1))
    return torch.cat(rows)


def _tiles(x: Tensor, tile: int) -> list[Tensor]:
    return [x[i : i + tile] for i in range(0, len(x), tile)]


def _parameters(module: nn.Module, names: Sequence[str] | None) -> dict[str, Tensor]:
    tied = [name for name, part in module.named_modules() if isinstance(part, TYING) and part.training]
    if tied:
        raise Refused(f"{tied[0]} ties inputs to each other or draws while it trains: call .eval() first")
    held = dict(module.named_parameters())
    wanted = [name for name, leaf in held.items() if leaf.requires_grad] if names is None else list(names)
    unknown = [name for name in wanted if name not in held]
    if unknown or not wanted:
        raise Refused(f"parameters {unknown or wanted} are none of the module's: {', '.join(held) or 'it has none'}")
    return {name: held[name].detach() for name in wanted}


def _width(out: Tensor) -> int:
    if out.ndim not in (1, 2) or len(out) != 1:
        raise Refused(f"the module gives {tuple(out.shape)} of one input, and (1,) or (1, o) is needed")
    return 1 if out.ndim == 1 else out.shape[1]


def _mixed(outputs: Outputs, width: int, like: Tensor) -> Tensor:
    """Which functions there are, as columns (o, functions)."""
    if outputs in ("mean", "all"):
        return torch.eye(width, dtype=like.dtype, device=like.device)
    if outputs == "sum":
        return like.new_full((width, 1), width**-0.5)
    if isinstance(outputs, bool) or not isinstance(outputs, int) or not 0 <= outputs < width:
        raise Refused(f"outputs={outputs!r} is none of mean, sum, all and 0..{width - 1}")
    return torch.eye(width, dtype=like.dtype, device=like.device)[:, outputs : outputs + 1]


def _called(module: nn.Module, leaves: dict[str, Tensor], x: Tensor, mix: Tensor) -> Tensor:
    out = functional_call(module, leaves, (x,))
    made: Tensor = out.reshape(len(x), -1) @ mix
    return made


def _jacobian(module: nn.Module, leaves: dict[str, Tensor], x: Tensor, mix: Tensor) -> Tensor:
    """(n, functions, P)."""
    each = vmap(jacrev(lambda p, one: _called(module, p, one[None], mix)[0]), in_dims=(None, 0))(leaves, x)
    return torch.cat([each[name].flatten(2) for name in leaves], 2).detach()


def _by_products(module: nn.Module, leaves: dict[str, Tensor], x: Tensor, z: Tensor, mix: Tensor) -> Tensor:
    """(n, m, functions, functions), a gradient and a product with all x for each column."""
    count = mix.shape[1]
    found = mix.new_empty(len(x), len(z), count, count)
    for j in range(len(z)):
        pulled = vjp(lambda p, j=j: _called(module, p, z[j : j + 1], mix)[0], leaves)[1]
        for o in range(count):
            one = mix.new_zeros(count)
            one[o] = 1
            (gradient,) = pulled(one)
            found[:, j, :, o] = jvp(lambda p: _called(module, p, x, mix), (leaves,), (gradient,))[1].detach()
    return found


def _linear_layers(module: nn.Module, leaves: dict[str, Tensor]) -> dict[str, tuple[nn.Linear, bool, bool]] | None:
    """The linear layers whose weights or biases are asked for; None where something else is, or one is shared."""
    found, left = {}, set(leaves)
    for name, part in module.named_modules():
        if type(part) is nn.Linear:
            weight, bias = (f"{name}.{leaf}".lstrip(".") for leaf in ("weight", "bias"))
            if {weight, bias} & left:
                found[name] = part, weight in left, bias in left
                left -= {weight, bias}
    shared = {id(p) for p in module.parameters()}
    once = sum(len(list(part.parameters(recurse=False))) for part in module.modules()) == len(shared)
    return found if not left and once else None


def _layers(
    module: nn.Module, linear: dict[str, tuple[nn.Linear, bool, bool]], x: Tensor, mix: Tensor
) -> list[Pair] | None:
    """Inputs A (n, s, a) and gradients G (n, s, functions, g) of each layer; None where its rows are not the inputs."""
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in linear}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(_: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
            probe = torch.zeros_like(out, requires_grad=True)
            seen[name].append((given[0].detach(), probe))
            return out + probe

        return hook

    handles = [part.register_forward_hook(watch(name)) for name, (part, _, _) in linear.items()]
    try:
        with torch.enable_grad():
            functions = (module(x).reshape(len(x), -1) @ mix).sum(0)
    finally:
        for handle in handles:
            handle.remove()
    probes = [probe for calls in seen.values() for _, probe in calls]
    if any(len(probe) != len(x) for probe in probes):
        return None
    by_output = [torch.autograd.grad(f, probes, retain_graph=True, materialize_grads=True) for f in functions]
    gradients = iter(zip(*by_output, strict=True))
    made = []
    for name, calls in seen.items():
        _, weight, bias = linear[name]
        if not calls:
            continue
        a = torch.cat([given.reshape(len(x), -1, given.shape[-1]) for given, _ in calls], 1)
        g = torch.cat(
            [
                torch.stack(next(gradients), -2).reshape(len(x), -1, len(functions), probe.shape[-1])
                for _, probe in calls
            ],
            1,
        )
        ones = a.new_ones(*a.shape[:2], 1)
        made.append((torch.cat([a, ones], 2) if weight and bias else a if weight else ones, g))
    return made


def _all_layers(
    module: nn.Module,
    linear: dict[str, tuple[nn.Linear, bool, bool]],
    inputs: tuple[Tensor, Tensor],
    mix: Tensor,
    tile: int,
) -> list[list[list[Pair]]] | None:
    """`_layers` of tiles of both inputs; None where a layer's rows are not the inputs."""
    found = []
    for x in inputs[: 1 if inputs[0] is inputs[1] else 2]:
        parts = [_layers(module, linear, each, mix) for each in _tiles(x, tile)]
        if any(part is None for part in parts):
            return None
        found.append([part for part in parts if part is not None])
    return [found[0], found[-1]]


def _contracted(x: list[Pair], z: list[Pair], every: bool) -> Tensor:
    """(n, m), the mean of `gram_of_layers` over functions, or (n, m, functions, functions)."""
    count = x[0][1].shape[2]
    if not every:
        return gram_of_layers(*([(a, g.flatten(2)) for a, g in each] for each in (x, z))) / count
    one = [[[(a, g[:, :, o]) for a, g in each] for o in range(count)] for each in (x, z)]
    return torch.stack([torch.stack([gram_of_layers(p, q) for q in one[1]], -1) for p in one[0]], -2)
