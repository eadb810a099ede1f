"""An HTML page that needs no network: what it shows is inside, and nothing else may load or run."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import Final

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2733; --soft: #5b6b7b; --line: #d8dee6;
  --paper: #fff; --tint: #f4f6f9; --bar: 37 99 190; --mark: #c2410c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebf1; --soft: #9fb0c2; --line: #33404e;
  --paper: #12181f; --tint: #1b242e; --bar: 96 152 232; --mark: #fb923c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 62rem; color: var(--ink);
  background: var(--paper); font: 16px/1.55 system-ui, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.9rem; margin: 0 0 1rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .8rem; padding-bottom: .3rem;
  border-bottom: 1px solid var(--line); }
h3 { font-size: 1.02rem; margin: 1.4rem 0 .6rem; }
table { border-collapse: collapse; margin: .6rem 0 1rem; font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .9rem .32rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 600; font-size: .87rem; }
code { font: .86em ui-monospace, Menlo, Consolas, monospace; background: var(--tint);
  padding: .08em .3em; border-radius: 3px; }
pre { background: var(--tint); padding: .9rem 1rem; border-radius: 6px; overflow-x: auto; }
pre code { padding: 0; background: none; }
figure { display: inline-block; margin: .4rem 2.4rem 1.2rem 0; vertical-align: top; }
figcaption { color: var(--soft); font-size: .87rem; margin-bottom: .4rem; }
svg { display: block; max-width: 100%; height: auto; overflow: visible; }
svg text { font: 13px system-ui, sans-serif; fill: var(--ink); }
svg .soft { fill: var(--soft); }
"""


def html_page(title: str, body: str, *, style: str = "", script: str = "") -> str:
    """Write a page; equal arguments give equal bytes.

    Args:
        title: plain text.
        body: HTML.
        style: further CSS.
        script: the one script that may run, named by its digest in the page's policy.
    """
    policy, tail = _POLICY, ""
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'"
        tail = f"<script>{script}</script>\n"
    return (
        "<!doctype html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}{style}</style>\n</head>\n"
        f"<body>\n{body}{tail}</body>\n</html>\n"
    )
