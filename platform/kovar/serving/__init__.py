"""A registered version behind HTTP: spec, protocol, replica, Ray Serve application."""

from kovar.serving.app import build
from kovar.serving.protocol import ServedVersion
from kovar.serving.spec import ReplicaRange, RequestLimits, ServingSpec, read_args

__all__ = ["ReplicaRange", "RequestLimits", "ServedVersion", "ServingSpec", "build", "read_args"]
