"""Tiny inputs that tests of every room share: an encoder of 25 thousand parameters."""

from __future__ import annotations

import json
import string
from pathlib import Path

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LEXICON = (
    "a an and the this that it is was very not film movie story plot acting i loved hated "
    "good great fine lovely brilliant moving bad awful dull boring terrible weak"
)
WORDS = LEXICON.split()


def build_tiny_tokenizer(folder: Path) -> Path:
    """Write `tokenizer.json`: lower-cased word pieces, every ASCII text has a token sequence."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    pieces = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    known = [*SPECIAL_TOKENS, *WORDS, *(p for p in pieces if p not in WORDS)]
    known += [f"##{piece}" for piece in pieces if piece.isalnum()]
    vocabulary = {token: index for index, token in enumerate(known)}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
    )
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    return folder


def build_tiny_encoder(folder: Path, *, seed: int = 0, max_positions: int = 64) -> Path:
    """Write a random BERT (2 layers, hidden 32) with its tokenizer into `folder` and return it.

    The same arguments give the same bytes. The caller's random state is left alone.
    """
    import torch
    from transformers import BertConfig, BertModel

    build_tiny_tokenizer(folder)
    config = BertConfig(
        vocab_size=len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=max_positions,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(folder)
    return folder
