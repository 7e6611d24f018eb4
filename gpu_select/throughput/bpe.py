"""A byte-level BPE tokenizer of Qwen's kind and size, trained on text at hand: its cost is a real one's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["END", "N_SPECIAL", "train_tokenizer"]

END = "<|endoftext|>"
"""Closes every text, as in Qwen3-Embedding, and pads."""

N_SPECIAL = 26
"""Special tokens of Qwen3, behind the trained ones."""

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Where Qwen's tokenizer cuts text before it merges. Source: transformers, models/qwen2/tokenization_qwen2.py."""


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> Any:
    """A `tokenizers.Tokenizer` with `END` behind every text.

    Args:
        texts: what to train on. A small corpus gives a smaller vocabulary than wished.
        vocab_size: entries, the special ones included; more than 256 + `N_SPECIAL`.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - N_SPECIAL,
        special_tokens=[],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer, length=len(texts))
    tokenizer.add_special_tokens([END, *(f"<|special_{i}|>" for i in range(1, N_SPECIAL))])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    return tokenizer
