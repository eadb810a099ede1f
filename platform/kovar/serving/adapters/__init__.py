"""Adapters of one base that a replica loads when they are first asked for."""
