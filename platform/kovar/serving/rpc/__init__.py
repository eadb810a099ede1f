"""The Open Inference Protocol over gRPC."""

from kovar.serving.rpc.service import InferenceService, add_service

__all__ = ["InferenceService", "add_service"]
