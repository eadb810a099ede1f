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


CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DECODER_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def build_tiny_decoder(
    folder: Path, *, kind: str = "llama", seed: int = 0, template: str | None = CHATML
) -> Path:
    """Write a random decoder (2 layers, hidden 32) whose tokens are bytes, and a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM

    known = [*DECODER_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {token: index for index, token in enumerate(known)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(DECODER_TOKENS))
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    names = ("n_embd", "n_inner", "n_layer", "n_head") if kind == "gpt2" else names
    sizes = dict(zip(names, (32, 64, 2, 2), strict=True))
    positions = "n_positions" if kind == "gpt2" else "max_position_embeddings"
    extra = {} if kind in ("gpt2", "phi3") else {"num_key_value_heads": 1, "head_dim": 16}
    config = AutoConfig.for_model(
        kind,
        **sizes,
        **extra,
        **{positions: 128},
        vocab_size=len(known),
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder
