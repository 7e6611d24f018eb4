"""Texts to unit vectors: encoders by name, tokens, batches, pooling, and a cache of vectors."""

from gpu_select.encoder.backbone import Encoder
from gpu_select.encoder.batching import default_token_budget, run_batches, token_batches
from gpu_select.encoder.cache import EmbeddingCache
from gpu_select.encoder.device import DtypeName, resolve_device, resolve_dtype
from gpu_select.encoder.embedding import Embedded, embed, embed_tokenized
from gpu_select.encoder.loading import load_encoder
from gpu_select.encoder.packing import TokenBatch, pack
from gpu_select.encoder.registry import ENCODERS, EncoderSpec
from gpu_select.encoder.resolve import is_at_hand, resolve_encoder
from gpu_select.encoder.settings import EncoderSettings
from gpu_select.encoder.tokens import Tokenized, Tokenizer

__all__ = [
    "ENCODERS",
    "DtypeName",
    "Embedded",
    "EmbeddingCache",
    "Encoder",
    "EncoderSettings",
    "EncoderSpec",
    "TokenBatch",
    "Tokenized",
    "Tokenizer",
    "default_token_budget",
    "embed",
    "embed_tokenized",
    "is_at_hand",
    "load_encoder",
    "pack",
    "resolve_device",
    "resolve_dtype",
    "resolve_encoder",
    "run_batches",
    "token_batches",
]
