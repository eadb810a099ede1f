"""The `kovar` command."""

from kovar.cli.app import app, main

__all__ = ["app", "main"]
