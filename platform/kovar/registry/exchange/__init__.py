"""Versions on their way to and from other places: folders, archives, MLflow."""

from kovar.registry.exchange.archive import export_archive, import_archive
from kovar.registry.exchange.envelope import MANIFEST_FILE, Envelope
from kovar.registry.exchange.folder import export_folder, import_folder
from kovar.registry.exchange.mlflow_store import MlflowVersion, export_mlflow, import_mlflow

__all__ = [
    "MANIFEST_FILE",
    "Envelope",
    "MlflowVersion",
    "export_archive",
    "export_folder",
    "export_mlflow",
    "import_archive",
    "import_folder",
    "import_mlflow",
]
