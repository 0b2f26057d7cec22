"""A tokenizer of a few words, as a model's folder has one."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers

# `Ġ` stands for a space: " yes" is one token, "yes" is two, "no" is one.
VOCABULARY = ("y", "e", "s", "Ġ", "n", "o", "ye", "Ġye", "Ġyes", "no", "Ċ")
MERGES = [("y", "e"), ("Ġ", "ye"), ("Ġye", "s"), ("n", "o")]
YES, NO, NEWLINE = (VOCABULARY.index(word) for word in ("Ġyes", "no", "Ċ"))


def tiny_tokenizer() -> Tokenizer:
    """Return a byte-level BPE tokenizer of `VOCABULARY`, which cuts and pads as some files ask."""
    vocab = {word: i for i, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=MERGES))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.enable_truncation(1)
    tokenizer.enable_padding(length=4)
    return tokenizer


def save_tokenizer(folder: Path) -> Path:
    """Write `tokenizer.json` into a folder, made where it is missing, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    return folder
