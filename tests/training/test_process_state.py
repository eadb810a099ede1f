"""A process between two trials."""

from __future__ import annotations

import os
import random
import warnings

import numpy as np
import pytest
import torch

from kovar.training.trial import ProcessState

CHANGES = {
    "environment": lambda: os.environ.update(KOVAR_CHANGED="1"),
    "folder": lambda: os.chdir("/"),
    "warnings": lambda: warnings.simplefilter("ignore"),
    "python_generator": random.random,
    "numpy_generator": lambda: np.random.rand(),
    "numpy_errors": lambda: np.seterr(under="raise"),
    "torch_generator": lambda: torch.rand(1),
    "num_threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "default_dtype": lambda: torch.set_default_dtype(torch.float64),
    "gradients": lambda: torch.set_grad_enabled(False),
    "anomalies": lambda: torch.autograd.set_detect_anomaly(True),
    "deterministic": lambda: torch.use_deterministic_algorithms(True),
    "matmul_precision": lambda: torch.set_float32_matmul_precision("medium"),
    "autocast_cache": lambda: torch.set_autocast_cache_enabled(False),
    "autocast_cpu": lambda: torch.set_autocast_enabled("cpu", True),
    "autocast_dtype_cuda": lambda: torch.set_autocast_dtype("cuda", torch.bfloat16),
    "backends.cudnn.benchmark": lambda: setattr(torch.backends.cudnn, "benchmark", True),
    "backends.mkldnn.enabled": lambda: setattr(torch.backends.mkldnn, "enabled", False),
    "sdp_flash": lambda: torch.backends.cuda.enable_flash_sdp(False),
}


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("name", CHANGES)
def test_what_a_trial_changes_is_seen_and_taken_back(name):
    state = ProcessState.capture()
    try:
        CHANGES[name]()
        assert name in state.changed()
    finally:
        state.restore()
    assert state.changed() == []
