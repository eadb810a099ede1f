from pathlib import Path

import pytest

from kovar.errors import SpecError
from kovar.precision import (
    PRECISIONS,
    Device,
    declared_device,
    detect_device,
    plan_precision,
    resolve,
)
from kovar.resources import ACCELERATORS, CpuRequest

CPU = Device("cpu", "Xeon", bf16_matrix_units=False)
AMX = Device("cpu", "Xeon with AMX", bf16_matrix_units=True)
TPU = Device("xla", "TPU v6e", bf16_matrix_units=True)
TPU7 = declared_device("tpu", "v7x")
MI300 = declared_device("gpu", "AMD-Instinct-MI300X-OAM")
P100, V100, T4, A100, L4, H100, B200 = (
    declared_device("gpu", name) for name in ("P100", "V100", "T4", "A100", "L4", "H100", "B200")
)

SUPPORTED = [
    (CPU, "fp32", {"fp32", "bf16"}),
    (AMX, "bf16", {"fp32", "bf16"}),
    (TPU, "bf16", {"fp32", "bf16"}),
    (TPU7, "bf16", {"fp32", "bf16", "fp8"}),
    (P100, "fp32", {"fp32", "fp16"}),
    (V100, "fp16", {"fp32", "fp16"}),
    (T4, "fp16", {"fp32", "fp16"}),
    (A100, "bf16", {"fp32", "tf32", "bf16", "fp16"}),
    (L4, "bf16", {"fp32", "tf32", "bf16", "fp16", "fp8"}),
    (H100, "bf16", {"fp32", "tf32", "bf16", "fp16", "fp8"}),
    (B200, "bf16", {"fp32", "tf32", "bf16", "fp16", "fp8"}),
    (MI300, "bf16", {"fp32", "bf16", "fp16"}),
]
NAMES = [device.name for device, _, _ in SUPPORTED]


@pytest.mark.parametrize(("device", "automatic", "supported"), SUPPORTED, ids=NAMES)
def test_each_chip_runs_exactly_what_it_supports(device, automatic, supported):
    assert resolve("auto", device).precision == automatic
    for precision in set(PRECISIONS) - {"auto"}:
        if precision in supported:
            assert resolve(precision, device).precision == precision
        else:
            with pytest.raises(SpecError, match=f"^precision: {precision} does not run on"):
                resolve(precision, device)


@pytest.mark.parametrize(
    ("precision", "device", "dtype", "autocast", "scaler"),
    [
        ("fp32", CPU, "float32", False, False),
        ("bf16", CPU, "bfloat16", True, False),
        ("bf16", AMX, "bfloat16", True, False),
        ("tf32", A100, "float32", False, False),
        ("bf16", A100, "bfloat16", True, False),
        ("fp16", A100, "float16", True, True),
        ("fp8", H100, "float8_e4m3fn", True, False),
        ("bf16", TPU, "bfloat16", True, False),
        ("fp8", TPU7, "float8_e4m3fn", True, False),
    ],
)
def test_a_precision_means_a_type_autocast_and_a_scaler(precision, device, dtype, autocast, scaler):
    resolved = resolve(precision, device)
    assert (resolved.dtype, resolved.autocast, resolved.scaler) == (dtype, autocast, scaler)


def test_the_type_is_one_of_torch():
    import torch

    assert resolve("auto", AMX).torch_dtype is torch.bfloat16
    assert resolve("fp8", H100).torch_dtype is torch.float8_e4m3fn


@pytest.mark.parametrize(
    ("precision", "device", "reason"),
    [
        ("auto", CPU, "no bf16 matrix units, and without them bf16 is slower"),
        ("bf16", CPU, "slower than fp32 on this CPU"),
        ("auto", AMX, "AMX matrix units"),
        ("auto", TPU, "matrix units compute in"),
        ("auto", T4, "loss scaler"),
        ("auto", A100, "no loss scaler"),
    ],
)
def test_every_choice_has_its_reason(precision, device, reason):
    assert reason in resolve(precision, device).reason


@pytest.mark.parametrize(
    ("precision", "device", "message"),
    [
        ("fp16", CPU, "bf16 saves as much memory"),
        ("tf32", AMX, "tensor cores"),
        ("fp8", TPU, "Ada or Hopper generation or newer, or a TPU v7x"),
        ("bf16", T4, "capability 8.0 (Ampere) or newer, this GPU has 7.5"),
        ("fp8", A100, "capability 8.9 (Ada, Hopper) or newer, this GPU has 8.0"),
        ("fp8", MI300, "no CUDA capability"),
    ],
)
def test_an_impossible_precision_says_what_is_missing_and_what_works(precision, device, message):
    with pytest.raises(SpecError) as caught:
        resolve(precision, device, field="training.precision")
    assert message in str(caught.value)
    assert caught.value.field == "training.precision"
    assert f"use auto, which takes {resolve('auto', device).precision}" in caught.value.hint


@pytest.mark.parametrize(
    ("flags", "has_units"),
    [("fpu sse2 avx2", False), ("avx512f avx512_bf16", False), ("avx512_bf16 amx_bf16", True)],
)
def test_only_matrix_units_make_bf16_worth_it_on_a_cpu(tmp_path, flags, has_units):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: {flags}\n")
    assert detect_device("cpu", cpuinfo=cpuinfo) == Device("cpu", "Some CPU", has_units)


def test_a_cpu_that_tells_nothing_about_itself_computes_in_fp32(tmp_path: Path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nBogoMIPS\t: 243.75\n")
    assert resolve("auto", detect_device("cpu", cpuinfo=cpuinfo)).precision == "fp32"


def test_a_gpu_that_is_not_there_is_an_error_of_the_user():
    import torch

    if torch.cuda.is_available():
        device = detect_device("cuda")
        assert device.kind == "cuda"
        assert resolve("auto", device).precision in ("bf16", "fp16")
    else:
        with pytest.raises(SpecError, match="torch sees no GPU"):
            detect_device("cuda")


def test_declared_chips_are_known_before_a_worker_runs_on_them():
    assert declared_device("cpu") == detect_device("cpu")
    assert declared_device("tpu", "v6e") == TPU
    assert declared_device("gpu") is None
    assert declared_device("gpu", "GeForce-RTX-5090") is None
    assert declared_device("gpu", "aws-neuron-core") is None


def test_what_nvidia_publishes_a_rate_for_is_what_the_chip_supports():
    for entry in ACCELERATORS.values():
        if entry.capability is not None:
            device = declared_device("gpu", entry.name)
            assert all(resolve(name, device).precision == name for name in entry.flops)


def test_a_plan_for_other_machines_says_whose_cpu_it_judges_by():
    here, there = (plan_precision("fp32", CpuRequest(), [], is_here=one) for one in (True, False))
    assert there.reason.startswith(here.reason)
    assert "planning machine" in there.reason
    assert "planning machine" not in here.reason
