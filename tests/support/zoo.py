"""The classes of models that people bring, each tiny, with random weights, made in memory, and a batch for it.

Matrices are large enough against their rank, and noisy enough, that every method has something to do in them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
import transformers as t
from torch import Tensor, nn

Batch = Tensor | dict[str, Tensor]
Make = Callable[[], tuple[nn.Module, Batch]]

VOCABULARY = 100
HIDDEN = 16
LENGTH = 12
SEQUENCES = 3
CLASSES = 3

_TOKENS: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_BLOCKS: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.2,
}
_DECODER: dict[str, Any] = {**_TOKENS, **_BLOCKS, "num_key_value_heads": 2, "max_position_embeddings": 64}
_ENCODER: dict[str, Any] = {**_TOKENS, **_BLOCKS, "max_position_embeddings": 64}
_SIDES: dict[str, Any] = {
    "d_model": HIDDEN,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "init_std": 0.2,
}
_T5: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": HIDDEN,
    "d_ff": 24,
    "d_kv": 4,
    "num_heads": 4,
    "num_layers": 1,
    "num_decoder_layers": 1,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 2,
    "initializer_factor": 3.0,
}
_EXPERTS: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 2}


def ids(sequences: int = SEQUENCES, length: int = LENGTH) -> Tensor:
    """Token ids (sequences, length), none of them special."""
    return torch.randint(5, VOCABULARY, (sequences, length), generator=torch.Generator().manual_seed(0))


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def outputs(model: nn.Module, batch: Batch) -> Tensor:
    """What a model says of a batch, as one tensor."""
    found: Any = model(batch) if isinstance(batch, Tensor) else model(**batch)
    for name in ("logits", "logits_per_image"):
        if getattr(found, name, None) is not None:
            return cast(Tensor, getattr(found, name))
    return cast(Tensor, found if isinstance(found, Tensor) else found[0])


def zoo() -> dict[str, Make]:
    """Every class by name, with what makes a model of it, in eval mode, and a batch that it can be called with."""
    return dict(_ZOO)


class ConvolutionalRecurrent(nn.Module):
    """Convolutions over images, a recurrent net over their rows, a classifier: as readers of text lines are built."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 12, (3, 2), stride=(2, 1), padding=(1, 0))
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.recurrent = nn.LSTM(12, 10, bidirectional=True, batch_first=True)
        self.head = nn.Linear(20, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.relu(self.depthwise(self.second(torch.relu(self.norm(self.first(x))))))
        y: Tensor = self.head(self.recurrent(maps.mean(3).mT)[0])
        return y


class Waves(nn.Module):
    """Convolutions over sound that shrink it and stretch it again, some of their weights normed."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, 12, 5, stride=2, padding=2)
        self.depthwise = nn.Conv1d(12, 12, 3, padding=1, groups=12)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Conv1d(12, 12, 3, padding=1))
        self.stretch = nn.ConvTranspose1d(12, 8, 4, stride=2, padding=1)
        self.last = nn.Conv1d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.first, self.depthwise, self.normed, self.stretch):
            x = torch.relu(layer(x))
        y: Tensor = self.last(x)
        return y


def _seeded(make: Callable[[], tuple[nn.Module, Batch]]) -> Make:
    def seeded() -> tuple[nn.Module, Batch]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model, batch = make()
            for name, p in model.named_parameters():  # several classes leave their experts uninitialised
                if p.ndim == 3 and "conv" not in name:
                    nn.init.normal_(p, std=0.2)
        return model.eval(), batch

    return seeded


def _model(kind: str, config: str, options: Mapping[str, Any], batch: Callable[[], Batch]) -> Make:
    """A model of transformers by the names of its class and of its configuration."""
    return _seeded(lambda: (getattr(t, kind)(getattr(t, config)(**options)), batch()))


def decoder(kind: str, config: str, **options: Any) -> Make:
    """Another model in the shape of Llama, by the names of its class and of its configuration."""
    return _model(kind, config, {**_DECODER, **options}, ids)


def _text() -> Batch:
    return {"input_ids": ids(), "attention_mask": torch.ones(SEQUENCES, LENGTH, dtype=torch.long)}


def _pair() -> Batch:
    return {**cast(dict[str, Tensor], _text()), "decoder_input_ids": ids(length=LENGTH // 2)}


def _image() -> Batch:
    return {"pixel_values": normal(SEQUENCES, 3, 16, 16)}


def _speech() -> Batch:
    return {"input_features": normal(SEQUENCES, 8, 24), "decoder_input_ids": ids(length=LENGTH // 2)}


def _captioned() -> Batch:
    text = ids()
    text[:, -1] = 2
    return {**cast(dict[str, Tensor], _image()), "input_ids": text, "attention_mask": torch.ones_like(text)}


def _clip() -> tuple[nn.Module, Batch]:
    text = {**_ENCODER, "max_position_embeddings": LENGTH}
    config = t.CLIPConfig(
        text_config=text, vision_config={**_BLOCKS, "image_size": 16, "patch_size": 8}, projection_dim=8
    )
    return t.CLIPModel(config), _captioned()


def _switch() -> tuple[nn.Module, Batch]:
    sparse = {"num_experts": 4, "expert_capacity": 64, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1}
    config = t.SwitchTransformersConfig(**_T5, **sparse, router_jitter_noise=0.0)
    return t.SwitchTransformersForConditionalGeneration(config), _pair()


def _encoder() -> tuple[nn.Module, Batch]:
    layer = nn.TransformerEncoderLayer(HIDDEN, 4, 24, batch_first=True, dropout=0.0)
    return nn.TransformerEncoder(layer, 2), normal(SEQUENCES, LENGTH, HIDDEN)


_LLAMA4 = {
    **_DECODER,
    **_EXPERTS,
    "intermediate_size_mlp": 24,
    "head_dim": 4,
    "interleave_moe_layer_step": 2,
    "attention_chunk_size": 32,
}
_OPT = {
    **_TOKENS,
    "hidden_size": HIDDEN,
    "word_embed_proj_dim": HIDDEN,
    "ffn_dim": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "init_std": 0.2,
}
_VIT = {**_BLOCKS, "image_size": 16, "patch_size": 8, "num_labels": CLASSES}
_BERT_CLASSES = {**_ENCODER, "num_labels": CLASSES}
_WHISPER = {
    **_TOKENS,
    **_SIDES,
    "num_mel_bins": 8,
    "max_source_positions": 12,
    "max_target_positions": 32,
    "decoder_start_token_id": 1,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
}
_BART = {**_TOKENS, **_SIDES, "max_position_embeddings": 64, "decoder_start_token_id": 2, "forced_eos_token_id": 2}
_DISTILBERT = {**_TOKENS, "dim": HIDDEN, "hidden_dim": 24, "n_layers": 2, "n_heads": 4, "initializer_range": 0.2}
_FALCON = {**_TOKENS, **_BLOCKS, "multi_query": True, "alibi": False}
_GPT2 = {**_TOKENS, "n_embd": HIDDEN, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.2}
_MAMBA = {**_TOKENS, "hidden_size": HIDDEN, "num_hidden_layers": 2, "state_size": 4, "time_step_rank": 4}
_JETMOE = {**_DECODER, **_EXPERTS, "num_key_value_heads": 2, "kv_channels": 4, "num_local_experts": 4}
_RESNET = {
    "embedding_size": 8,
    "hidden_sizes": [8, 12],
    "depths": [1, 2],
    "layer_type": "basic",
    "num_labels": CLASSES,
}
_CONVNEXT = {"hidden_sizes": [8, 12], "depths": [1, 1], "num_stages": 2, "patch_size": 2, "num_labels": CLASSES}

_ZOO: dict[str, Make] = {
    "Llama": _model("LlamaForCausalLM", "LlamaConfig", _DECODER, ids),
    "Qwen2": _model("Qwen2ForCausalLM", "Qwen2Config", {**_DECODER, "tie_word_embeddings": True}, ids),
    "Gemma3": _model("Gemma3ForCausalLM", "Gemma3TextConfig", {**_DECODER, "head_dim": 4}, ids),
    "Phi3": _model("Phi3ForCausalLM", "Phi3Config", _DECODER, ids),
    "Falcon": _model("FalconForCausalLM", "FalconConfig", _FALCON, ids),
    "GPT2": _model("GPT2LMHeadModel", "GPT2Config", _GPT2, ids),
    "OPT": _model("OPTForCausalLM", "OPTConfig", _OPT, ids),
    "Mamba": _model("MambaForCausalLM", "MambaConfig", _MAMBA, ids),
    "Mixtral": _model("MixtralForCausalLM", "MixtralConfig", {**_DECODER, **_EXPERTS}, ids),
    "JetMoE": _model("JetMoeForCausalLM", "JetMoeConfig", _JETMOE, ids),
    "Llama4": _model("Llama4ForCausalLM", "Llama4TextConfig", _LLAMA4, ids),
    "BERT masked": _model("BertForMaskedLM", "BertConfig", _ENCODER, _text),
    "BERT classifier": _model("BertForSequenceClassification", "BertConfig", _BERT_CLASSES, _text),
    "DistilBERT": _model("DistilBertForMaskedLM", "DistilBertConfig", _DISTILBERT, _text),
    "T5": _model("T5ForConditionalGeneration", "T5Config", _T5, _pair),
    "BART": _model("BartForConditionalGeneration", "BartConfig", _BART, _pair),
    "Switch": _seeded(_switch),
    "Whisper": _model("WhisperForConditionalGeneration", "WhisperConfig", _WHISPER, _speech),
    "ViT": _model("ViTForImageClassification", "ViTConfig", _VIT, _image),
    "CLIP": _seeded(_clip),
    "ResNet": _model("ResNetForImageClassification", "ResNetConfig", _RESNET, _image),
    "ConvNeXt": _model("ConvNextForImageClassification", "ConvNextConfig", _CONVNEXT, _image),
    "TransformerEncoder": _seeded(_encoder),
    "ConvolutionalRecurrent": _seeded(lambda: (ConvolutionalRecurrent(), normal(SEQUENCES, 1, 12, 16))),
    "Waves": _seeded(lambda: (Waves(), normal(SEQUENCES, 4, 16))),
}
