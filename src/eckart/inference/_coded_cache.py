"""A key-value cache that holds its keys and values in a code of fewer bytes, and attention that reads the code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from eckart.errors import Refused
from eckart.models.presence import check_model
from eckart.models.transformers_attention import attending


class Code(Protocol):
    """How the keys and values of one attention are held."""

    def encode(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """What is held of keys and values (sequences, key heads, tokens, head size).

        Each is (sequences, 1, tokens, numbers): what a token takes depends on that token alone.
        """
        ...

    def attend(
        self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float, causal: bool
    ) -> Tensor:
        """As `Attend`, from what `encode` made of the keys and values."""
        ...


@contextmanager
def coded_cache(model: nn.Module, codes: Mapping[str, Code], whose: str) -> Iterator[list[str]]:
    """Inside, attentions hold and read keys and values in their codes, and in passes without a cache read them too.

    The cache may be any of transformers that grows with its tokens, that of `generate` among them; from their first use
    on its layers hold the code in their `keys` and `values`. So a cache of before cannot be used inside, nor one of
    inside afterwards.

    Args:
        model: in eval mode.
        codes: by the names of all its attentions.
        whose: the name of the context, for what is refused.

    Raises:
        Refused: a model in training mode, an encoder or an encoder-decoder, or as `attending`; inside, a cache that
            was filled elsewhere, or one of fixed length.
    """
    check_model(model, whose)
    if model.training:
        raise Refused(f"{whose} is for inference: call model.eval() first")
    context = _Context(whose, codes)

    def attend(
        name: str, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float, causal: bool
    ) -> Tensor:
        return codes[name].attend(query, keys, values, mask, scale, causal)

    with attending(model, attend, whose) as found, ExitStack() as stack:
        stack.callback(context.close)
        for name, module in found.items():
            if not getattr(module, "is_causal", False) or getattr(model.config, "is_encoder_decoder", False):
                raise Refused(f"{whose}: {name} of {type(model).__name__} keeps no keys and values of what it has read")
        for name, module in found.items():
            stack.callback(module.register_forward_pre_hook(context.entering(name), with_kwargs=True).remove)
        yield list(found)


Call = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass
class _Context:
    """What the layers of caches share that were filled inside one context."""

    whose: str
    codes: Mapping[str, Code]
    open: bool = True

    def close(self) -> None:
        self.open = False

    def entering(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Call]:
        """A hook that gives an attention a cache that holds its code."""
        code = self.codes[name]

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
            cache = kwargs.get("past_key_values")
            if cache is None:
                return args, kwargs | {"past_key_values": _NoCache(code)}
            self.code_layer(cache, int(module.layer_idx), code)  # type: ignore[arg-type]
            return args, kwargs

        return enter

    def code_layer(self, cache: Any, index: int, code: Code) -> None:
        """Makes a layer of a cache hold the code, unless it does."""
        if getattr(cache, "offloading", False):
            raise Refused(f"{self.whose}: the cache is offloaded; use one that stays where the model is")
        while cache.layer_class_to_replicate is not None and len(cache.layers) <= index:
            cache.layers.append(cache.layer_class_to_replicate())
        layer = cache.layers[index]
        update = vars(layer).get("update")
        if isinstance(update, _Update) and update.context is self:
            return
        if layer.get_seq_length() > 0:
            raise Refused(f"{self.whose}: the cache was filled outside of this context; start with an empty one")
        if (kind := type(layer).__name__) not in ("DynamicLayer", "DynamicSlidingWindowLayer"):
            raise Refused(f"{self.whose}: layer {index} of the cache is a {kind}; use a DynamicCache, generate's own")
        layer.update = _Update(type(layer).update.__get__(layer), code, self)

    def __deepcopy__(self, memo: object) -> _Context:
        return self


@dataclass(frozen=True)
class _Update:
    """Stands in for the `update` of a layer, which then holds a code.

    Attributes:
        own: the layer's own.
        code: of what it is given.
        context: in which the layer is used.
    """

    own: Callable[..., tuple[Tensor, Tensor]]
    code: Code
    context: _Context

    def __call__(self, keys: Tensor, values: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Adds the code of some tokens, and gives that of all."""
        if not self.context.open:
            raise Refused(f"the cache was filled inside {self.context.whose}, which was left: go on with it there")
        return self.own(*self.code.encode(keys, values), *args, **kwargs)


@dataclass(frozen=True)
class _NoCache:
    """Stands in for the cache of a pass that has none."""

    code: Code

    def update(self, keys: Tensor, values: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """The code of this pass's tokens."""
        return self.code.encode(keys, values)


def cache_bytes(cache: Any) -> int:
    """Bytes of the keys and values that a cache of transformers holds, in a code or not."""
    held = [t for layer in cache.layers for t in (layer.keys, layer.values) if t is not None]
    return sum(t.numel() * t.element_size() for t in held)
