"""Container images that nodes run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from kovar.config import FieldPath
from kovar.resources.lint.finding import Finding
from kovar.resources.lint.source import Source

_RAY_IMAGES: Final = ("rayproject/ray", "rayproject/ray-ml", "rayproject/ray-llm", "anyscale/ray")
_FLOATING: Final = ("latest", "nightly", "main", "master", "stable", "dev")
_TAG = re.compile(r"(\d+\.\d+\.\d+\w*)(?:-py(\d)(\d+))?(?:-(.+))?")


def check_image(
    source: Source, path: FieldPath, image: str, *, ray: str, needs_gpu: bool = False
) -> Iterator[Finding]:
    """Report an image that can change under your feet, or that holds another Ray.

    Args:
        source: the file.
        path: where the image is named.
        image: for example rayproject/ray:2.60.0-py311.
        ray: the Ray version that Kovar is tested with.
        needs_gpu: whether the node has GPUs.
    """
    if not image or "@sha256:" in image:
        return
    name, _, tag = image.rpartition(":")
    if not name or "/" in tag:
        name, tag = image, ""
    repository = name.removeprefix("docker.io/")
    is_ray = repository in _RAY_IMAGES
    example = f"{repository}:{ray}-py311" + ("-gpu" if needs_gpu else "")
    if not tag or tag.partition("-")[0] in _FLOATING:
        yield source.error(
            path,
            "image-unpinned",
            f"{image} {'has no tag' if not tag else 'moves'}: nodes that start on another day "
            "run another Ray",
            fix=f"pin it, for example {example}" if is_ray else "pin a version or a digest",
        )
        return
    match = _TAG.fullmatch(tag) if is_ray else None
    if match is None:
        return
    if match[1] != ray:
        yield source.error(
            path,
            "ray-version",
            f"the image holds Ray {match[1]}; Kovar is tested with {ray}, and all nodes need "
            "the same",
            fix=f"use {example}",
        )
    if match[2] and (int(match[2]), int(match[3])) < (3, 11):
        yield source.error(
            path,
            "python-version",
            f"the image holds Python {match[2]}.{match[3]}, older than Kovar supports",
            fix=f"use {example}",
        )
    if needs_gpu and not re.match(r"gpu|cu\d", match[4] or ""):
        yield source.error(
            path,
            "image-without-cuda",
            f"{image} has no CUDA, and the node has GPUs",
            fix=f"use {example}",
        )
