"""What computes an export in ONNX Runtime, by the chip and by what the library was built with."""

from __future__ import annotations

import pytest

from kovar.errors import SpecError
from kovar.inference.onnx_runtime import (
    CPU,
    CUDA,
    TENSORRT,
    choose_providers,
    input_names,
    tensorrt_options,
)


def names(providers) -> list[str]:
    return [name for name, _ in providers]


def test_a_cpu_computes_alone_whatever_else_is_there():
    assert names(choose_providers("cpu", [TENSORRT, CUDA, CPU], tensorrt={})) == [CPU]


def test_a_gpu_computes_by_cuda_and_the_cpu_what_cuda_cannot():
    assert names(choose_providers("cuda", [TENSORRT, CUDA, CPU])) == [CUDA, CPU]


def test_tensorrt_comes_first_where_its_engines_are_kept():
    providers = choose_providers("cuda", [TENSORRT, CUDA, CPU], tensorrt={"a": "b"})
    assert providers[0] == (TENSORRT, {"a": "b"})
    assert names(providers) == [TENSORRT, CUDA, CPU]


def test_a_library_without_gpus_is_refused_with_what_to_install():
    with pytest.raises(SpecError, match="does not compute on GPUs") as refusal:
        choose_providers("cuda", [CPU])
    assert "onnxruntime-gpu" in (refusal.value.hint or "")


def test_tensorrt_is_told_the_shapes_of_every_input_of_the_file(exported, tmp_path):
    inputs = input_names(exported.export.path)
    assert inputs[:2] == ["input_ids", "attention_mask"]
    options = tensorrt_options(tmp_path, inputs=inputs, max_length=48)
    assert options["trt_engine_cache_path"] == str(tmp_path)
    assert options["trt_profile_max_shapes"].split(",") == [f"{name}:256x48" for name in inputs]
    assert options["trt_profile_opt_shapes"].split(",") == [f"{name}:32x48" for name in inputs]
