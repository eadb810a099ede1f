"""Configurations of small encoders, as far as they differ from transformers' defaults."""

SMALL = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "vocab_size": 100,
}
ENCODERS = {
    "albert": {**SMALL, "embedding_size": 16},
    "bert": SMALL,
    "camembert": SMALL,
    "distilbert": {"dim": 64, "n_heads": 4, "hidden_dim": 256, "n_layers": 2, "vocab_size": 100},
    "electra": {**SMALL, "embedding_size": 16},
    "ernie": SMALL,
    "modernbert": {
        **SMALL,
        **dict.fromkeys(("bos_token_id", "cls_token_id"), 1),
        **dict.fromkeys(("eos_token_id", "sep_token_id"), 2),
        "pad_token_id": 0,
    },
    "roberta": SMALL,
    "xlm-roberta": SMALL,
}
