"""The application's own documentation: `/openapi.json`, and `/docs`, which loads nothing else."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from pydantic.json_schema import models_json_schema

import kovar
from kovar.serving.api.endpoint import Endpoint
from kovar.serving.api.reply import JSON_TYPE, Reply
from kovar.serving.protocol.refusal import ErrorResponse

if TYPE_CHECKING:
    from pydantic import BaseModel

    from kovar.serving.api.call import Call
    from kovar.serving.protocol import ServedVersion

_REFERENCE: Final = "#/components/schemas/{model}"
_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "an API key: kovar_ID_SECRET"},
    "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}


def documentation_endpoints(
    endpoints: Sequence[Endpoint], served: Sequence[ServedVersion], *, keyed: bool = False
) -> list[Endpoint]:
    """Describe the endpoints that document the others.

    Args:
        endpoints: what is documented.
        served: the versions that answer.
        keyed: whether callers need an API key.
    """

    @cache
    def document() -> bytes:
        return json.dumps(openapi_document(endpoints, served, keyed=keyed)).encode()

    async def openapi(_: Call) -> Reply:
        return Reply(document(), headers=(JSON_TYPE,))

    async def docs(_: Call) -> Reply:
        page = docs_page(json.loads(document()), served).encode()
        headers = (
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-security-policy", _POLICY),
        )
        return Reply(page, headers=headers)

    return [
        Endpoint(method="GET", path="/openapi.json", summary="OpenAPI document", answer=openapi),
        Endpoint(method="GET", path="/docs", summary="This documentation", answer=docs),
    ]


def openapi_document(
    endpoints: Sequence[Endpoint], served: Sequence[ServedVersion], *, keyed: bool = False
) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the application.

    Args:
        endpoints: what is documented.
        served: the versions that answer.
        keyed: whether callers need an API key.
    """
    kinds: dict[type[BaseModel], None] = {ErrorResponse: None}
    for endpoint in endpoints:
        kinds |= {kind: None for kind in (endpoint.request, endpoint.response) if kind}
    _, schemas = models_json_schema(
        [(kind, "validation") for kind in kinds], ref_template=_REFERENCE
    )
    names = list(dict.fromkeys(one.model for one in served))
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        operation = _operation(endpoint, names)
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": f"Kovar: {', '.join(names)}", "version": kovar.__version__},
        "paths": paths,
        "components": {"schemas": schemas["$defs"]},
    }
    if keyed:
        document["components"]["securitySchemes"] = _SCHEMES
        document["security"] = [{name: []} for name in _SCHEMES]
    return document


def _operation(endpoint: Endpoint, names: list[str]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": "the answer"}
    if endpoint.response is not None:
        answer["content"] = _content(endpoint.response)
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "operationId": f"{endpoint.method} {endpoint.path}".lower(),
        "parameters": [
            {
                "name": name,
                "in": "path",
                "required": True,
                "schema": {"type": "string"} | ({"enum": names} if name == "model" else {}),
            }
            for name in ("model", "version")
            if f"{{{name}}}" in endpoint.path
        ],
        "responses": {
            "200": answer,
            "default": {"description": "a refusal", "content": _content(ErrorResponse)},
        },
    }
    if endpoint.request is not None:
        operation["requestBody"] = {"required": True, "content": _content(endpoint.request)}
    return operation


def _content(kind: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REFERENCE.format(model=kind.__name__)}}}


_POLICY: Final = (
    b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    b"connect-src 'self'; img-src data:"
)
_STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#1c2430}
code,pre,textarea{font:13px/1.45 ui-monospace,monospace}
pre,textarea{background:#f4f6f8;border:1px solid #d8dee5;border-radius:6px;padding:.7rem;
overflow:auto;width:100%;box-sizing:border-box}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .6rem;
border-bottom:1px solid #e4e8ed;vertical-align:top}
details{margin:.4rem 0}summary{cursor:pointer}.m{font-weight:600;display:inline-block;width:3.2rem}
button{padding:.35rem 1rem;border:0;border-radius:6px;background:#1f5fbf;color:#fff;cursor:pointer}
"""
_SCRIPT: Final = """
document.getElementById('send').onclick=async()=>{
 const out=document.getElementById('answer'),key=document.getElementById('key').value;
 const headers={'content-type':'application/json'};
 if(key)headers.authorization='Bearer '+key;
 const root=location.pathname.replace(/\\/docs$/,'');
 out.hidden=false;
 try{
  const reply=await fetch(root+'/v1/predict',
   {method:'POST',headers,body:document.getElementById('body').value});
  out.textContent=reply.status+'\\n'+JSON.stringify(await reply.json(),null,1);
 }catch(problem){out.textContent=String(problem)}
};
"""


def docs_page(document: dict[str, Any], served: Sequence[ServedVersion]) -> str:
    """Return a page that names the versions, tries `/v1/predict` and lists paths and fields."""
    title = html.escape(document["info"]["title"])
    rows = "".join(
        f"<tr><td>{html.escape(one.model)}<td>{one.version}<td><code>{one.digest[:12]}</code>"
        f"<td>{html.escape(', '.join(one.labels[:8]))}<td>{one.runtime}, {one.precision}"
        for one in served
    )
    operations = "".join(
        _operation_html(path, method, operation, document["components"]["schemas"])
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    example = html.escape('{"inputs": ["A gripping film."], "attributions": false}')
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><link rel=icon href=data:,>"
        f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>"
        "<table><tr><th>model<th>version<th>digest<th>labels<th>runtime"
        f"{rows}</table><h2>Try it</h2><textarea id=body rows=4>{example}</textarea>"
        "<p><button id=send>POST /v1/predict</button> "
        "<label>API key <input id=key type=password autocomplete=off></label></p>"
        f"<pre id=answer hidden></pre><h2>Paths</h2>{operations}"
        f"<p><a href=openapi.json>openapi.json</a></p><script>{_SCRIPT}</script></html>"
    )


def _operation_html(
    path: str, method: str, operation: dict[str, Any], schemas: dict[str, Any]
) -> str:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    tables = _fields_html("request", body, schemas) if body else ""
    answer = operation["responses"]["200"].get("content", {}).get("application/json")
    tables += _fields_html("answer", answer, schemas) if answer else ""
    return (
        f"<details><summary><span class=m>{method.upper()}</span><code>{html.escape(path)}</code> "
        f"{html.escape(operation['summary'])}</summary>{tables}</details>"
    )


def _fields_html(title: str, content: dict[str, Any], schemas: dict[str, Any]) -> str:
    schema = schemas[content["schema"]["$ref"].rpartition("/")[2]]
    required = schema.get("required", []) if title == "request" else []
    rows = "".join(
        f"<tr><td><code>{html.escape(name)}</code><td>{'required' if name in required else ''}"
        f"<td>{html.escape(field.get('description', ''))}"
        for name, field in schema["properties"].items()
    )
    return f"<h4>{title}</h4><table>{rows}</table>"
