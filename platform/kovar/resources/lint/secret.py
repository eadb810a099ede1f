"""Secrets that are written into a file which is meant for version control."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from kovar.config import FieldPath
from kovar.resources.lint.finding import Finding
from kovar.resources.lint.source import Source

_PATTERNS: Final[tuple[tuple[str, re.Pattern[str]], ...]] = (
    ("an AWS access key", re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")),
    ("a private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")),
    ("a GitHub token", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,})")),
    ("a Hugging Face token", re.compile(r"\bhf_[A-Za-z0-9]{20,}\b")),
    ("a Google API key", re.compile(r"\bAIza[0-9A-Za-z_-]{35}")),
    ("a password in a URL", re.compile(r"://[^\s:/@$]+:(?!\$)[^\s:/@]+@")),
    (
        "a secret",
        re.compile(
            r"(?i)(?<![a-z])\w*(?:secret|token|password|api_?key)\w*[\"']?\s*[=:]\s*[\"']?"
            r"(?=[^\s\"']*\d)(?![$~/])[A-Za-z0-9+/_\-]{16,}"
        ),
    ),
)
_SECRET_KEYS = re.compile(
    r"(?i)^(?:aws_secret_access_key|aws_session_token|credentials|.*password)$"
)


def check_secrets(source: Source) -> Iterator[Finding]:
    """Report secrets, without repeating them."""
    for path, text in source.texts():
        kind = next((name for name, pattern in _PATTERNS if pattern.search(text)), None)
        if kind is None and _SECRET_KEYS.match(str(path[-1])) and text and "$" not in text:
            kind = "a secret"
        if kind is not None:
            yield _finding(source, path, kind, text)


def _finding(source: Source, path: FieldPath, kind: str, text: str) -> Finding:
    match = next((m for name, p in _PATTERNS if name == kind if (m := p.search(text))), None)
    return source.error(
        path,
        "secret",
        f"this looks like {kind}: whoever reads the file has it",
        fix="revoke it, and take it from a role of the machine, a secret store, or a file that "
        "file_mounts copies",
        part=match[0].splitlines()[0] if match else "",
    )
