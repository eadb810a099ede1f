"""The Ray Serve application that serves one registered version.

`import_path: kovar.serving.app:build` in a Serve configuration file, with the fields of
`ServingSpec` as `args`; or `serve.run(build({"model": "movie-sentiment"}))`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kovar.models import ModelSpec, known_config
from kovar.registry import Registry, Version
from kovar.resources import Request, as_written, live_cluster, replica_options
from kovar.serving.access.key_file import read_keys
from kovar.serving.adapters.binding import bind_adapters
from kovar.serving.autoscaling.binding import autoscaling_options, quiet_metrics_interval
from kovar.serving.plan import plan_replicas
from kovar.serving.replica import Replica
from kovar.serving.spec import ServingSpec, read_args
from kovar.serving.versions import bind_versions, further_weights
from kovar.settings import Settings, load_settings

if TYPE_CHECKING:
    from ray.serve import Application

DEPLOYMENT: Final = "model"
"""Name of the application's one deployment."""

# A replica refuses for itself, with the reason and the version in its answer, so it is sent more
# requests than it holds. Bodies still on their way take places as well, and hundreds of clients
# that never finish theirs must leave some. The proxy's own queue is bounded too, for the time
# without replicas; behind HAProxy the same bound holds for what comes in one turn of a replica's
# event loop.
SPARE_REQUESTS: Final = 1024
MAX_QUEUED_AT_PROXY: Final = 256


def build(args: dict[str, Any] | ServingSpec) -> Application:
    """Resolve the versions and describe their deployment.

    An alias is resolved here and once, so every replica of this deployment, also one that starts
    next week, serves the digest that the alias points at now.

    Args:
        args: fields of `ServingSpec`.

    Raises:
        SpecError: a field is wrong; it names the field.
        NotFoundError: the registry has no such model, version or alias.
        UntrustedVersionError: keys are trusted, and none of them signed the version.
    """
    from ray import serve

    settings = load_settings()
    spec = _with_keys(read_args(args), settings)
    with Registry.open(settings) as registry:
        versions = bind_versions(spec, registry, settings)
        served = frozenset(one.version.digest for one in versions)
        adapters = bind_adapters(spec, registry, served=served)
        request = _planned_request(spec, versions[0].version, registry)
    deployment = serve.deployment(serve.ingress()(Replica), name=DEPLOYMENT)
    with quiet_metrics_interval():
        described = deployment.options(**deployment_options(spec, request))
    return described.bind(spec, versions, adapters, **_places(settings))


def _with_keys(spec: ServingSpec, settings: Settings) -> ServingSpec:
    """Name the file of API keys for the replicas; what is wrong with it is told before they start.

    A file that is not on this machine may be on theirs: a mounted secret, for example.
    """
    access = spec.access.resolved(settings.api_keys)
    if access.keys is not None and Path(access.keys).exists():
        read_keys(Path(access.keys))
    return spec.model_copy(update={"access": access})


def _places(settings: Settings) -> dict[str, Any]:
    """What a replica needs of the settings; the database's URL may hold a password."""
    return {"artifact_root": settings.artifact_root, "cache_dir": settings.cache_dir}


def _planned_request(spec: ServingSpec, version: Version, registry: Registry) -> Request:
    """Return what each replica is given, once it is proved that the cluster has it.

    Without a connection to Ray there is no cluster yet to plan for.
    """
    import ray

    if not spec.plan or not ray.is_initialized():
        return as_written(spec.replica, field="replica")
    named = ModelSpec(base=f"version:{version.model}@{version.digest}")
    config = known_config(named, base_dir=Path(), registry=registry)
    longest = version.manifest.signature.max_length or 1
    plan = plan_replicas(
        spec,
        live_cluster(),
        config=config,
        max_length=longest,
        more_weights=further_weights(spec, registry),
    )
    return plan.request


def deployment_options(spec: ServingSpec, request: Request) -> dict[str, Any]:
    """Return the options of the Serve deployment.

    Args:
        spec: the application.
        request: what each replica is given.

    The values differ from Serve's defaults where those lose requests: a bounded queue refuses
    with 429 instead of timing out, short router back-offs keep a busy replica fed, and a surge
    starts new replicas before the old ones stop, so a version that cannot start breaks nothing.
    """
    limits, replicas = spec.limits, spec.num_replicas
    options: dict[str, Any] = {
        **replica_options(request, spec.placement, field="replica"),
        "max_ongoing_requests": limits.max_queued + spec.batching.max_rows + SPARE_REQUESTS,
        "max_queued_requests": MAX_QUEUED_AT_PROXY,
        "backpressure_config": {"status_code": 429, "retry_after_s": 1.0},
        "request_router_config": {"initial_backoff_s": 0.01, "max_backoff_s": 0.02},
        "max_surge_percent": 25,  # rounded up: at least one replica
        "max_constructor_retry_count": 3,
        "graceful_shutdown_wait_loop_s": 0.2,
        "graceful_shutdown_timeout_s": limits.request_timeout_s + 5.0,
        "health_check_period_s": 5.0,
        "health_check_timeout_s": 10.0,
    }
    if replicas.is_fixed:
        return options | {"num_replicas": replicas.min}
    return options | {"autoscaling_config": autoscaling_options(replicas, spec.autoscaling)}
