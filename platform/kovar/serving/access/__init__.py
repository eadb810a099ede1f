"""Who may ask: API keys, their scopes and limits, and the gate that holds them."""

from kovar.serving.access.gate import Gate
from kovar.serving.access.key import ApiKey, KeyLimits, Scope
from kovar.serving.access.keyring import Keyring
from kovar.serving.access.middleware import GateMiddleware
from kovar.serving.access.settings import AccessSettings

__all__ = ["AccessSettings", "ApiKey", "Gate", "GateMiddleware", "KeyLimits", "Keyring", "Scope"]
