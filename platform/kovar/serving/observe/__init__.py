"""What is seen of requests from outside: logs, captures, metrics, spans."""

from kovar.serving.observe.access_log import AccessLog, LogLines
from kovar.serving.observe.capture import Capture
from kovar.serving.observe.json_lines import JsonLines
from kovar.serving.observe.meter import Meter
from kovar.serving.observe.observer import Observer, ObserverMiddleware
from kovar.serving.observe.settings import CaptureSettings, ObserveSettings

__all__ = [
    "AccessLog",
    "Capture",
    "CaptureSettings",
    "JsonLines",
    "LogLines",
    "Meter",
    "ObserveSettings",
    "Observer",
    "ObserverMiddleware",
]
