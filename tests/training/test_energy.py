"""Energy counters, on a made-up machine."""

from __future__ import annotations

import pytest

from kovar.training.trial.energy import CardEnergy, PackageEnergy, processor_seconds


def package(root, microjoules, size=1_000_000_000):
    """Write the counter of one CPU package."""
    domain = root / "intel-rapl:0"
    domain.mkdir(exist_ok=True)
    (domain / "max_energy_range_uj").write_text(f"{size}\n")
    (domain / "energy_uj").write_text(f"{microjoules}\n")
    return domain


def test_a_process_is_given_its_share_of_what_the_package_used(tmp_path):
    times = iter([(0.0, 0.0), (1.0, 4.0), (1.0, 8.0)])
    meter = PackageEnergy([package(tmp_path, 0)], clock=lambda: next(times))
    package(tmp_path, 80_000_000)
    assert meter.read() == pytest.approx(20.0)
    package(tmp_path, 160_000_000)
    assert meter.read() == pytest.approx(20.0)


def test_a_counter_that_wraps_around_goes_on(tmp_path):
    times = iter([(0.0, 0.0), (1.0, 1.0)])
    meter = PackageEnergy([package(tmp_path, 900_000_000)], clock=lambda: next(times))
    package(tmp_path, 99_999_999)
    assert meter.read() == pytest.approx(200.0)


def test_a_machine_without_counters_tells_nothing(tmp_path):
    assert PackageEnergy.open(tmp_path) is None


def test_parts_of_a_package_are_not_counted_twice(tmp_path):
    package(tmp_path, 0)
    (tmp_path / "intel-rapl:0:0").mkdir()
    (tmp_path / "intel-rapl:0:0" / "energy_uj").write_text("0")
    meter = PackageEnergy.open(tmp_path)
    package(tmp_path, 1_000_000)
    assert 0.0 <= meter.read() <= 1.0


def test_a_part_of_a_card_is_given_that_part_of_its_energy():
    counter = iter([100.0, 140.0])
    assert CardEnergy(lambda: next(counter), share=0.25).read() == pytest.approx(10.0)


def test_a_process_has_no_more_time_than_the_machine():
    own, everything = processor_seconds()
    assert 0 < own <= everything
