"""MLServer's side of benchmarks/serving.py: a custom runtime behind its adaptive batching.

usage: mlserver start FOLDER

FOLDER holds this file and serving_onnx.py with what it needs, settings.json and
model-settings.json. Source of the pattern:
https://docs.seldon.ai/mlserver/user-guide/custom
"""

from __future__ import annotations

from pathlib import Path

from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse
from serving_onnx import Classifier


class Runtime(MLModel):
    """Answers the Open Inference Protocol: texts as BYTES, probabilities as FP32."""

    async def load(self) -> bool:
        """Load the classifier, in each worker."""
        extra = self.settings.parameters.extra
        self.classifier = Classifier(Path(__file__).parent, threads=extra["threads"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one batch of requests, which MLServer has merged into one."""
        texts = self.decode(payload.inputs[0], default_codec=StringCodec)
        output = NumpyCodec.encode_output("scores", self.classifier.scores(texts))
        return InferenceResponse(model_name=self.name, outputs=[output])
