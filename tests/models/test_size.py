"""Numbers of parameters from config.json, held against models that transformers builds."""

import pytest
import torch
import transformers

from kovar.models import ARCHITECTURES
from kovar.models import DECODERS as WRITERS
from kovar.models.language_size import language_model_size
from kovar.models.published import published_config
from kovar.models.size import LoraShape, model_size

SMALL = {
    "albert": {"hidden_size": 96, "num_attention_heads": 4, "num_hidden_groups": 2},
    "bert": {"hidden_size": 96, "num_attention_heads": 4, "type_vocab_size": 3},
    "camembert": {"hidden_size": 96, "num_attention_heads": 4, "intermediate_size": 100},
    "distilbert": {"dim": 96, "n_heads": 4, "hidden_dim": 100},
    "electra": {"embedding_size": 256},
    "ernie": {"use_task_id": True},
    "modernbert": {"norm_bias": True, "attention_bias": True, "classifier_bias": True},
    "roberta": {"num_hidden_layers": 3},
    "xlm-roberta": {"vocab_size": 777},
}
DECODERS = {
    "gemma": {"num_key_value_heads": 1},
    "gpt2": {"n_inner": 100},
    "llama": {"num_key_value_heads": 8, "mlp_bias": True, "tie_word_embeddings": True},
    "mistral": {"num_hidden_layers": 2},
    "olmo2": {"num_key_value_heads": 4, "attention_bias": True},
    "phi3": {"num_key_value_heads": 4},
    "qwen2": {"num_key_value_heads": 4},
    "qwen3": {"num_key_value_heads": 4, "attention_bias": True},
    "smollm3": {"mlp_bias": True, "tie_word_embeddings": False},
}


def count(kind, model_type, **fields):
    config = transformers.AutoConfig.for_model(model_type, **fields)
    with torch.device("meta"):
        return kind.from_config(config).num_parameters()


@pytest.mark.parametrize("model_type", sorted(SMALL))
@pytest.mark.parametrize("small", [False, True])
def test_a_classifier_has_as_many_parameters_as_transformers_builds(model_type, small):
    fields = SMALL[model_type] if small else {}
    size = model_size({"model_type": model_type, **fields}, num_labels=3)
    kind = transformers.AutoModelForSequenceClassification
    assert size.total == count(kind, model_type, num_labels=3, **fields)
    assert size.trainable() == size.total


@pytest.mark.parametrize("model_type", sorted(DECODERS))
@pytest.mark.parametrize("small", [False, True])
def test_a_decoder_has_as_many_parameters_as_transformers_builds(model_type, small):
    fields = DECODERS[model_type] if small else {}
    size = model_size({"model_type": model_type, **fields})
    assert size.total == count(transformers.AutoModelForCausalLM, model_type, **fields)


@pytest.mark.parametrize("model_type", sorted(SMALL))
def test_a_model_that_guesses_hidden_tokens_has_as_many_parameters(model_type):
    size = language_model_size({"model_type": model_type, **SMALL[model_type]})
    built = count(transformers.AutoModelForMaskedLM, model_type, **SMALL[model_type])
    assert size.total == built


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", 8_030_261_248),
        ("meta-llama/Llama-3.1-70B", 70_553_706_496),
        ("meta-llama/Llama-3.2-1B", 1_235_814_400),
        ("meta-llama/Llama-3.2-3B", 3_212_749_824),
        ("Qwen/Qwen2.5-0.5B@main", 494_032_768),
        ("Qwen/Qwen2.5-1.5B", 1_543_714_304),
        ("Qwen/Qwen2.5-7B", 7_615_616_512),
        ("mistralai/Mistral-7B-v0.3", 7_248_023_552),
        ("openai-community/gpt2", 124_439_808),
    ],
)
def test_a_listed_model_has_the_size_that_its_makers_publish(name, published):
    assert language_model_size(published_config(name)).total == published


def test_lora_trains_a_copy_of_a_language_model_head_that_the_base_lacks():
    lora, config = LoraShape(8), {"model_type": "bert"}
    bare = language_model_size(config)
    whole = language_model_size({**config, "architectures": ["BertForMaskedLM"]})
    copied = 768 * 769 + 2 * 768 + 30522 * 769
    assert bare.trainable(lora) - whole.trainable(lora) == copied


def test_a_decoder_with_labels_has_a_score_instead_of_a_language_model_head():
    fields = {"num_hidden_layers": 1, "vocab_size": 64, "pad_token_id": 0}
    kind = transformers.AutoModelForSequenceClassification
    size = model_size({"model_type": "llama", **fields}, num_labels=3)
    assert size.total == count(kind, "llama", num_labels=3, **fields)


def test_every_encoder_that_can_be_trained_has_a_size():
    assert set(SMALL) == set(ARCHITECTURES)
    assert all(model_size({"model_type": kind}, num_labels=2) for kind in ARCHITECTURES)


def test_every_decoder_that_can_be_trained_has_a_size():
    assert set(WRITERS) <= set(DECODERS)


def test_an_unknown_architecture_has_no_size():
    assert model_size({"model_type": "mamba", "hidden_size": 64}) is None
    assert model_size({}) is None


def test_lora_trains_two_factors_per_matrix_and_the_classifier():
    size = model_size({"model_type": "bert"}, num_labels=2)
    query_and_value = 12 * 2 * 8 * (768 + 768)
    assert size.trainable(LoraShape(8)) == query_and_value + 2 * 769
    every_matrix = 12 * 8 * (4 * 2 * 768 + 2 * (768 + 3072))
    assert size.adapters(LoraShape(8, ("all-linear",))) == every_matrix


def test_a_target_is_the_last_part_of_a_name():
    size = model_size({"model_type": "bert"}, num_labels=2)
    dense = 8 * ((768 + 768) + 2 * (768 + 3072))
    assert size.adapters(LoraShape(8, ("dense",))) == 12 * dense
    assert size.adapters(LoraShape(8, ("ense",))) == 0


def test_layers_that_share_weights_count_once_as_parameters_and_each_time_as_work():
    size = model_size({"model_type": "albert"}, num_labels=2)
    assert size.layers == size.layer
    assert size.matrix_parameters == 12 * (4 * 4096**2 + 2 * 4096 * 16384)
