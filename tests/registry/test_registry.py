"""Register, resolve, move aliases, get files, verify."""

import hashlib
import itertools
import os
import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from kovar.errors import (
    ConflictError,
    DamagedArtifactError,
    NotFoundError,
    UnsafeArtifactError,
    UserError,
)
from kovar.registry import Registry
from kovar.registry.artifacts import blob_path


def blob_of(settings, version, path):
    digest = next(file.sha256 for file in version.manifest.files if file.path == path)
    return Path(settings.artifact_root) / blob_path(digest)


# Registering


def test_a_registered_version_can_be_found_with_all_its_facts(registry, folder, facts):
    made = registry.register(
        "reviews",
        folder,
        facts=facts,
        created_by="ada",
        run="r1",
        sweep="s1",
        tags={"team": "search"},
        run_facts={"seconds": 3.5},
    )
    found = registry.version("reviews", 1)
    assert found == made
    assert (found.created_by, found.run, found.sweep) == ("ada", "r1", "s1")
    assert (found.tags, found.run_facts) == ({"team": "search"}, {"seconds": 3.5})
    assert found.manifest.metrics == facts.metrics
    assert found.digest == found.manifest.digest


def test_identical_content_is_one_version(registry, folder, facts, version):
    again = registry.register("reviews", folder, facts=facts, run="another run")
    assert again == version
    assert len(registry.versions("reviews")) == 1


def test_identical_content_of_another_model_is_its_own_version(registry, folder, facts, version):
    other = registry.register("other", folder, facts=facts)
    assert (other.model, other.number, other.digest) == ("other", 1, version.digest)
    assert registry.resolve(version.digest).digest == version.digest


def test_numbers_count_up_and_the_newest_comes_first(registry, three):
    assert [version.number for version in three] == [1, 2, 3]
    assert list(registry.versions("reviews")) == three[::-1]


def test_the_same_blob_is_stored_once_for_all_versions(settings, three):
    blobs = [names for _, _, names in os.walk(settings.artifact_root) if names]
    assert sum(map(len, blobs)) == len(three[0].manifest.files)


def test_a_bad_file_registers_and_stores_nothing(settings, registry, folder, facts):
    (folder / "z.json").write_bytes(pickle.dumps({}))
    with pytest.raises(UnsafeArtifactError):
        registry.register("reviews", folder, facts=facts)
    assert registry.models() == ()
    assert not Path(settings.artifact_root).exists()


def test_a_bad_model_name_is_refused_before_any_work(registry, tmp_path, facts):
    with pytest.raises(UserError, match="not a valid name for the model"):
        registry.register("My Model", tmp_path / "nothing", facts=facts)


def test_progress_ends_at_the_total(registry, folder, facts):
    seen = []
    registry.register("reviews", folder, facts=facts, progress=lambda *step: seen.append(step))
    what, done, total = seen[-1]
    assert what == "registering"
    assert done == total == sum(path.stat().st_size for path in folder.rglob("*.*"))


def test_a_version_can_be_sent_to_another_process(version):
    assert pickle.loads(pickle.dumps(version)) == version  # noqa: S301


# Finding


def test_every_kind_of_reference_resolves(registry, three):
    second = three[1]
    registry.set_alias("reviews", "champion", 2)
    for text in ("reviews", "reviews@champion", "reviews@2", f"reviews@{second.digest[:8]}"):
        assert registry.resolve(text) == second
    assert registry.resolve(second.digest) == second
    assert registry.version("reviews", second.digest[:20]) == second


def test_a_bare_name_without_a_champion_is_not_guessed(registry, version):
    with pytest.raises(NotFoundError, match=r"no champion.*\n.*reviews@1"):
        registry.resolve("reviews")


def test_an_unknown_model_offers_the_nearest(registry, version):
    with pytest.raises(NotFoundError, match='did you mean "reviews"'):
        registry.resolve("review@1")


def test_an_unknown_alias_offers_the_nearest(registry, version):
    registry.set_alias("reviews", "champion", 1)
    with pytest.raises(NotFoundError, match='did you mean "champion"'):
        registry.resolve("reviews@champon")


@pytest.mark.parametrize("reference", ["reviews@4", "reviews@00000000", "00000000"])
def test_an_unknown_version_is_not_found(registry, three, reference):
    with pytest.raises(NotFoundError, match="no version"):
        registry.resolve(reference)


def test_a_prefix_of_two_digests_asks_for_more_digits(registry, folder, facts, version):
    template, seen = version.manifest.to_bytes(), {}
    for seed in itertools.count(1):
        content = template.replace(b'"seed":0', b'"seed":%d' % seed)
        prefix = hashlib.sha256(content).hexdigest()[:8]
        if prefix in seen:
            break
        seen[prefix] = seed
    for each in (seed, seen[prefix]):
        registry.register("reviews", folder, facts=facts.model_copy(update={"seed": each}))
    with pytest.raises(NotFoundError, match=r"more than one version.*\n.*\n.*\n.*more digits"):
        registry.resolve(prefix)


@pytest.mark.parametrize("reference", ["", "@1", "reviews@", "reviews@1@2", "a b"])
def test_a_malformed_reference_is_a_users_error(registry, version, reference):
    with pytest.raises(UserError):
        registry.resolve(reference)


def test_models_are_listed_with_counts_and_aliases(registry, folder, facts, three):
    registry.register("another", folder, facts=facts)
    registry.set_alias("reviews", "champion", 2)
    another, reviews = registry.models()
    assert (another.name, another.num_versions, another.aliases) == ("another", 1, {})
    assert (reviews.num_versions, reviews.latest, reviews.aliases) == (3, 3, {"champion": 2})
    assert registry.aliases("reviews") == {"champion": 2}


# Aliases


def test_a_move_needs_the_version_that_the_alias_points_at(registry, three):
    registry.set_alias("reviews", "champion", 1)
    for wrong in (None, 2, three[1].digest):
        with pytest.raises(ConflictError, match="points at version 1"):
            registry.set_alias("reviews", "champion", 3, expected=wrong)
    registry.set_alias("reviews", "champion", 2, expected=1)
    registry.set_alias("reviews", "champion", 3, expected=three[1].digest)
    registry.set_alias("reviews", "champion", 1, expected=three[2].digest[:8])
    assert registry.resolve("reviews").number == 1


def test_an_alias_that_does_not_exist_cannot_be_expected_somewhere(registry, three):
    with pytest.raises(ConflictError, match="does not exist"):
        registry.set_alias("reviews", "champion", 1, expected=2)
    assert registry.aliases("reviews") == {}


def test_a_conflict_tells_a_program_where_the_alias_points(registry, three):
    registry.set_alias("reviews", "champion", 2)
    with pytest.raises(ConflictError) as caught:
        registry.set_alias("reviews", "champion", 3, expected=1)
    assert caught.value.context["current_number"] == 2
    assert caught.value.context["current_digest"] == three[1].digest


def test_a_forced_move_needs_a_reason_and_is_marked(registry, three):
    registry.set_alias("reviews", "champion", 1)
    with pytest.raises(UserError, match="needs a reason"):
        registry.set_alias("reviews", "champion", 2, force=True)
    move = registry.set_alias("reviews", "champion", 2, force=True, reason="outage")
    assert (move.forced, move.reason) == (True, "outage")


def test_the_history_says_who_when_from_to_and_why(settings, three):
    times = iter(datetime(2026, 5, 3, 10, minute, tzinfo=UTC) for minute in range(9))
    with Registry.open(settings, clock=lambda: next(times)) as registry:
        registry.set_alias("reviews", "champion", 1, by="ada", reason="first")
        registry.set_alias("reviews", "champion", 3, expected=1, by="bob", reason="better")
        first, second = registry.history("reviews", "champion")
    assert (first.sequence, first.from_number, first.to_number) == (1, None, 1)
    assert (second.from_number, second.to_number) == (1, 3)
    assert (second.from_digest, second.to_digest) == (three[0].digest, three[2].digest)
    assert (second.moved_by, second.reason, second.forced) == ("bob", "better", False)
    assert second.moved_at == datetime(2026, 5, 3, 10, 1, tzinfo=UTC)


def test_moving_to_where_it_points_already_adds_no_entry(registry, three):
    move = registry.set_alias("reviews", "champion", 1)
    assert registry.set_alias("reviews", "champion", 1, expected=1) == move
    assert len(registry.history("reviews", "champion")) == 1


def test_a_clock_that_goes_back_does_not_turn_the_history_around(settings, three):
    noon = datetime(2026, 5, 3, 12, tzinfo=UTC)
    times = iter([noon, noon - timedelta(hours=1), noon + timedelta(hours=1)])
    with Registry.open(settings, clock=lambda: next(times)) as registry:
        for number in (1, 2, 3):
            registry.set_alias("reviews", "champion", number, expected=number - 1 or None)
        moved = [move.moved_at for move in registry.history("reviews", "champion")]
    assert moved == [noon, noon, noon + timedelta(hours=1)]


@pytest.mark.parametrize("alias", ["3", "deadbeef", "Champion"])
def test_an_alias_that_could_be_mistaken_is_refused(registry, version, alias):
    with pytest.raises(UserError, match="alias"):
        registry.set_alias("reviews", alias, 1)


def test_an_alias_cannot_point_at_what_does_not_exist(registry, version):
    with pytest.raises(NotFoundError):
        registry.set_alias("reviews", "champion", 2)
    with pytest.raises(NotFoundError, match="no alias 'champion'"):
        registry.history("reviews", "champion")


@examples(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(moves=st.lists(st.tuples(st.sampled_from([None, 1, 2, 3]), st.integers(1, 3)), max_size=6))
def test_an_alias_behaves_like_a_variable_with_compare_and_swap(registry, three, moves):
    alias, value, written = f"alias-{uuid4()}", None, []
    for expected, to in moves:
        if expected == value:
            registry.set_alias("reviews", alias, to, expected=expected)
            written += [(value, to)] if to != value else []
            value = to
        else:
            with pytest.raises(ConflictError):
                registry.set_alias("reviews", alias, to, expected=expected)
    history = registry.history("reviews", alias) if written else ()
    assert [(move.from_number, move.to_number) for move in history] == written
    assert registry.aliases("reviews").get(alias) == value


# Files


def test_materialize_gives_exactly_the_files(registry, folder, version):
    local = registry.materialize(version)
    found = {p.relative_to(local): p.read_bytes() for p in local.rglob("*") if p.is_file()}
    assert found == {
        p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def test_materialize_keeps_the_folder_and_shares_the_blobs(settings, registry, version):
    local = registry.materialize(version)
    before = local.stat()
    assert registry.materialize(version) == local
    assert local.stat().st_ino == before.st_ino
    weights = local / "model.safetensors"
    assert weights.samefile(blob_of(settings, version, "model.safetensors"))


@pytest.mark.parametrize("spoil", ["altered", "missing", "extra"])
def test_a_spoiled_copy_is_made_again(registry, folder, version, tmp_path, spoil):
    local = registry.materialize(version, cache_dir=tmp_path / "cache")
    config = local / "config.json"
    if spoil != "extra":
        config.unlink()
    if spoil == "altered":
        config.write_text("{}")
    if spoil == "extra":
        (local / "pytorch_model.bin").write_bytes(b"")
    registry.materialize(version, cache_dir=tmp_path / "cache")
    assert config.read_bytes() == (folder / "config.json").read_bytes()
    assert not (local / "pytorch_model.bin").exists()


def test_rehash_finds_damage_that_left_no_trace_in_the_times(registry, version):
    config = registry.materialize(version) / "config.json"
    seen = config.stat()
    config.chmod(0o644)
    config.write_bytes(b" " * seen.st_size)
    os.utime(config, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    registry.materialize(version)
    with pytest.raises(DamagedArtifactError, match=r"config\.json"):
        registry.materialize(version, rehash=True)


def test_a_damaged_blob_is_never_materialized(settings, registry, version):
    blob_of(settings, version, "config.json").unlink()
    with pytest.raises(DamagedArtifactError, match=r"config\.json .*missing"):
        registry.materialize(version)
    assert not (settings.cache_dir / "versions" / version.digest).exists()


def test_what_a_killed_build_left_is_cleared(settings, registry, version):
    leftover = settings.cache_dir / "versions" / f".{version.digest}.new"
    leftover.mkdir(parents=True)
    (leftover / "half.json").write_text("{")
    local = registry.materialize(version)
    assert not leftover.exists()
    assert not (local / "half.json").exists()


# Verifying


def test_a_whole_registry_has_no_problems(registry, three):
    assert registry.verify() == []
    assert registry.verify(three[0]) == []


@pytest.mark.parametrize("kind", ["missing", "truncated", "altered"])
def test_verify_names_exactly_the_damaged_file(settings, registry, version, kind):
    blob = blob_of(settings, version, "model.safetensors")
    content = blob.read_bytes()
    blob.unlink()
    if kind == "truncated":
        blob.write_bytes(content[:-1])
    if kind == "altered":
        blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (problem,) = registry.verify()
    assert (problem.model, problem.number, problem.kind) == ("reviews", 1, kind)
    assert problem.path == "model.safetensors"
    assert problem.sha256 == blob.name
    assert str(problem).startswith("reviews@1: model.safetensors: ")


def test_damage_to_a_shared_blob_is_a_problem_of_every_version(settings, registry, three):
    blob_of(settings, three[0], "config.json").unlink()
    assert [problem.number for problem in registry.verify()] == [1, 2, 3]
    assert [problem.number for problem in registry.verify(three[1])] == [2]


def test_registering_again_mends_a_version(settings, registry, folder, facts, version):
    blob_of(settings, version, "config.json").unlink()
    assert registry.register("reviews", folder, facts=facts) == version
    assert registry.verify() == []
