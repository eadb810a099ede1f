"""The HTTP application of one replica."""

from kovar.serving.api.application import Middleware, create_api
from kovar.serving.api.envelope import REQUEST_ID_HEADER
from kovar.serving.served_model import Predictor

__all__ = ["REQUEST_ID_HEADER", "Middleware", "Predictor", "create_api"]
