"""The Open Inference Protocol over gRPC: what Serve's proxies route, and what a replica answers.

`grpc_options: {grpc_servicer_functions: [kovar.serving.rpc.add_service]}` in a Serve configuration
file opens it. Requests travel from the proxy to the replica as the bytes that came.
"""
# ruff: noqa: N802 (Serve calls a replica's methods by their names in the protocol)

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import kovar
from kovar.errors import RequestError
from kovar.serving.api.envelope import place_of, request_id_of
from kovar.serving.api.reply import retry_after, server_timing
from kovar.serving.exchange import Exchange
from kovar.serving.protocol.bounds import Bounds
from kovar.serving.protocol.infer import wanted_outputs
from kovar.serving.protocol.metadata import model_metadata, server_metadata
from kovar.serving.protocol.repository import check_load_parameters, repository_index
from kovar.serving.reading import read_content
from kovar.serving.rpc.infer import read_inference, write_inference
from kovar.serving.rpc.messages import PACKAGE, message, parse

if TYPE_CHECKING:
    from ray.serve.grpc_util import RayServegRPCContext

    from kovar.serving.answering import Answering

logger = logging.getLogger(__name__)

SERVICE: Final = f"{PACKAGE}.GRPCInferenceService"
METHODS: Final = (
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "ModelInfer",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
)

RpcScope = Literal["predict", "metadata", "admin"] | None
Handler = Callable[[Any, Exchange], Awaitable[Any]]


def add_service(servicer: Any, server: Any) -> None:
    """Register the protocol's methods with a proxy; Serve puts its own handlers in their places.

    Neither side reads the messages here: they pass as bytes.
    """
    import grpc

    handlers = {
        name: grpc.unary_unary_rpc_method_handler(getattr(servicer, name)) for name in METHODS
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


class InferenceService:
    """The methods of the service on a replica.

    A refusal is a status with its message and an answer without content: an exception would be
    logged with its trace by the server each time.
    """

    @property
    def answering(self) -> Answering:
        """What answers; the replica has it."""
        raise NotImplementedError

    def admit_rpc(
        self, headers: Mapping[str, str], scope: RpcScope, exchange: Exchange
    ) -> AbstractContextManager[None]:
        """Let one call in for as long as the context is open; a guard raises `RequestError`.

        Args:
            headers: the call's metadata, with names in lower case.
            scope: what the call needs of a key; None for what is open to everybody.
            exchange: what is known of the call.
        """
        return nullcontext()

    async def ServerLive(self, request: bytes, grpc_context: RayServegRPCContext) -> Any:
        """Tell that the server is up."""

        async def live(_: Any, __: Exchange) -> Any:
            return message("ServerLiveResponse", live=True)

        return await self._call("ServerLive", request, grpc_context, live, None)

    async def ServerReady(self, request: bytes, grpc_context: RayServegRPCContext) -> Any:
        """Tell whether every model can answer."""

        async def ready(_: Any, __: Exchange) -> Any:
            return message("ServerReadyResponse", ready=self.answering.models.is_ready)

        return await self._call("ServerReady", request, grpc_context, ready, None)

    async def ModelReady(self, request: bytes, grpc_context: RayServegRPCContext) -> Any:
        """Tell whether a model can answer."""

        async def ready(read: Any, exchange: Exchange) -> Any:
            model = self.answering.model(exchange, read.name, read.version or None)
            return message("ModelReadyResponse", ready=model.is_ready)

        return await self._call("ModelReady", request, grpc_context, ready, "metadata")

    async def ServerMetadata(self, request: bytes, grpc_context: RayServegRPCContext) -> Any:
        """Name the server and its extensions."""

        async def metadata(_: Any, __: Exchange) -> Any:
            return message("ServerMetadataResponse", **server_metadata(kovar.__version__))

        return await self._call("ServerMetadata", request, grpc_context, metadata, "metadata")

    async def ModelMetadata(self, request: bytes, grpc_context: RayServegRPCContext) -> Any:
        """Describe the inputs and outputs of a model."""

        async def metadata(read: Any, exchange: Exchange) -> Any:
            model = self.answering.model(exchange, read.name, read.version or None)
            fields = model_metadata(
                model.served, self.answering.models.versions_of(model.served.model)
            )
            del fields["parameters"]  # the message has no place for them
            return message("ModelMetadataResponse", **fields)

        return await self._call("ModelMetadata", request, grpc_context, metadata, "metadata")

    async def ModelInfer(self, request: bytes, grpc_context: RayServegRPCContext) -> Any:
        """Answer tensors with tensors."""
        return await self._call("ModelInfer", request, grpc_context, self._infer, "predict")

    async def RepositoryIndex(self, request: bytes, grpc_context: RayServegRPCContext) -> Any:
        """List the application's models."""

        async def index(read: Any, __: Exchange) -> Any:
            rows = repository_index(self.answering.models.models, ready=read.ready)
            return message("RepositoryIndexResponse", models=rows)

        return await self._call("RepositoryIndex", request, grpc_context, index, "metadata")

    async def RepositoryModelLoad(self, request: bytes, grpc_context: RayServegRPCContext) -> Any:
        """Bring an adapter into memory."""

        async def load(read: Any, exchange: Exchange) -> Any:
            answering = self.answering
            deadline = time.monotonic() + answering.limits.request_timeout_s
            model = answering.model(exchange, read.model_name)
            check_load_parameters(read.parameters)
            await answering.load(model.served.model, deadline=deadline)
            return message("RepositoryModelLoadResponse")

        return await self._call("RepositoryModelLoad", request, grpc_context, load, "admin")

    async def RepositoryModelUnload(self, request: bytes, grpc_context: RayServegRPCContext) -> Any:
        """Let an adapter go from memory."""

        async def unload(read: Any, exchange: Exchange) -> Any:
            model = self.answering.model(exchange, read.model_name)
            self.answering.unload(model.served.model)
            return message("RepositoryModelUnloadResponse")

        return await self._call("RepositoryModelUnload", request, grpc_context, unload, "admin")

    async def _infer(self, read: Any, exchange: Exchange) -> Any:
        answering = self.answering
        deadline = time.monotonic() + answering.limits.request_timeout_s
        model = answering.model(exchange, read.model_name, read.model_version or None)
        request = read_inference(read, Bounds.of(answering.limits, model.served))
        outputs = wanted_outputs(request)
        answer, _ = await answering.infer(model, request, outputs, exchange, deadline=deadline)
        return write_inference(request, outputs, model.served, answer)

    async def _call(
        self,
        name: str,
        request: bytes,
        context: RayServegRPCContext,
        handler: Handler,
        scope: RpcScope,
    ) -> Any:
        """Answer one call, or set the status of its refusal."""
        headers = {key.lower(): str(value) for key, value in context.invocation_metadata()}
        exchange = Exchange(request_id=request_id_of(headers), route=f"grpc:{name}", method="RPC")
        exchange.received_bytes = len(request)
        try:
            with self.admit_rpc(headers, scope, exchange):
                answer = await self._read_and_answer(name, request, exchange, handler)
        except RequestError as error:
            answer = self._refuse(error, exchange, context)
            more = retry_after(error)
        else:
            more = None if exchange.timing is None else server_timing(exchange.timing)
        # Of a refusal before the version was found, the default one is named.
        found = self.answering.models.find(exchange.model or None, exchange.version or None)
        trailers = [
            *found.served.headers.items(),
            ("x-kovar-request-id", exchange.request_id),
            *([(more[0].decode(), more[1].decode())] if more else ()),
        ]
        context.set_trailing_metadata(trailers)
        return answer

    async def _read_and_answer(
        self, name: str, request: bytes, exchange: Exchange, handler: Handler
    ) -> Any:
        from google.protobuf.message import DecodeError

        try:
            _check_size(request, self.answering.limits.max_body_bytes)
            self.answering.room.take(exchange, len(request))
            read = await read_content(
                request,
                partial(parse, f"{name}Request"),
                deadline=time.monotonic() + self.answering.limits.request_timeout_s,
            )
            answer = await handler(read, exchange)
            exchange.sent_bytes = answer.ByteSize()
            exchange.status = 200
        except RequestError as error:
            exchange.code, exchange.status = error.code, error.status
            raise
        except DecodeError:
            raise RequestError(
                "the bytes are no message of the protocol", status=400, code="invalid_message"
            ) from None
        except Exception as problem:
            # The message may quote the text, so only its kind and place are kept.
            logger.error("request %s failed: %s", exchange.request_id, place_of(problem))
            raise RequestError("the server failed", status=500, code="internal") from None
        finally:
            self.answering.room.give_back(exchange)
        return answer

    def _refuse(self, error: RequestError, exchange: Exchange, context: RayServegRPCContext) -> Any:
        import grpc

        exchange.code, exchange.status = error.code, error.status
        place = f"{error.field}: " if error.field else ""
        context.set_code(getattr(grpc.StatusCode, _STATUS.get(error.status, "INTERNAL")))
        hint = f"; {error.hint}" if error.hint else ""
        context.set_details(f"{place}{error.message}{hint} [{error.code}]")
        return message("ServerLiveResponse")


_STATUS: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: "RESOURCE_EXHAUSTED",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def _check_size(request: bytes, max_bytes: int) -> None:
    if len(request) > max_bytes:
        raise RequestError(
            f"the message is larger than {max_bytes} bytes", status=413, code="body_too_large"
        )
