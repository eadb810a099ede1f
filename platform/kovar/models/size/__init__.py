"""How large a model is, from its config.json alone: no weights, no torch.

The counts are those of transformers' `AutoModelForSequenceClassification`, or of
`AutoModelForCausalLM` where no number of labels is given; the tests compare them exactly.
"""

from kovar.models.size.dimensions import ModelSize, trains_with_lora
from kovar.models.size.families import model_size
from kovar.models.size.linear import Linear, LoraShape

__all__ = ["Linear", "LoraShape", "ModelSize", "model_size", "trains_with_lora"]
