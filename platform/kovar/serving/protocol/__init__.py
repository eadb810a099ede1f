"""Requests and answers on the wire: pure functions between bytes and texts or predictions."""

from kovar.serving.protocol.served import ServedVersion

__all__ = ["ServedVersion"]
