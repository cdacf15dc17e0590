"""What vLLM would be started with. No vLLM is needed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.toy_adapter import toy_manifest
from worker.contract import Lora
from worker.engine import arguments
from worker.engine.arguments import EngineSettings, engine_arguments, engine_environment
from worker.errors import SettingsError

KNOWN = {"max_model_len", "max_num_seqs", "block_size", "dtype", "kv_cache_memory_bytes", "model"}


def build(
    cpu: bool = True, environment: dict[str, str] | None = None, **changes: Any
) -> dict[str, Any]:
    settings = replace(EngineSettings(Path("/base"), toy_manifest()), **changes)
    return engine_arguments(settings, cpu=cpu, known=KNOWN, environment=environment or {})


def test_the_window_holds_the_longest_prompt_and_one_code() -> None:
    manifest = toy_manifest()
    assert build()["max_model_len"] == manifest.prompt.max_prompt_tokens + 1


def test_the_window_holds_the_longest_label_in_words() -> None:
    manifest = toy_manifest(decoding="choice", codes={})
    room = len("delivery") + 1
    built = build(manifest=manifest)
    assert built["max_model_len"] == manifest.prompt.max_prompt_tokens + room


def test_only_words_need_a_tokenizer() -> None:
    assert build()["skip_tokenizer_init"]
    assert not build(manifest=toy_manifest(decoding="choice", codes={}))["skip_tokenizer_init"]


def test_a_user_wins_over_a_default() -> None:
    built = build(engine_args={"block_size": 64, "max_num_seqs": 7})
    assert (built["block_size"], built["max_num_seqs"]) == (64, 7)


def test_a_variable_of_vllms_wins_over_a_default() -> None:
    assert "kv_cache_memory_bytes" in build()
    assert "kv_cache_memory_bytes" not in build(environment={"VLLM_CPU_KVCACHE_SPACE": "4"})


def test_a_gpu_is_left_to_vllm() -> None:
    assert {"block_size", "enforce_eager", "dtype"}.isdisjoint(build(cpu=False))


def test_a_misspelt_key_is_told_with_the_nearest_one() -> None:
    with pytest.raises(SettingsError, match=r"engine_args\.max_num_seq .*'max_num_seqs'"):
        build(engine_args={"max_num_seq": 1})


def test_a_key_like_none_is_told_alone() -> None:
    with pytest.raises(SettingsError, match=r"engine_args\.zzz .*knows$"):
        build(engine_args={"zzz": 1})


@pytest.mark.parametrize("key", ["model", "enable_log_requests", "logprobs_mode", "enable_lora"])
def test_what_the_adapter_decides_cannot_be_set(key: str) -> None:
    with pytest.raises(SettingsError, match=rf"engine_args\.{key} cannot be set"):
        build(engine_args={key: "x"})


@pytest.mark.parametrize("window", [10, "auto"])
def test_a_window_too_short_for_the_prompt_is_refused(window: object) -> None:
    with pytest.raises(SettingsError, match="max_model_len"):
        build(engine_args={"max_model_len": window})


@pytest.mark.parametrize(("rank", "told"), [(8, 8), (16, 16), (24, 32)])
def test_a_served_adapter_gets_its_rank_and_no_more(rank: int, told: int) -> None:
    manifest = toy_manifest(lora=Lora(rank, 32.0, ("q_proj",)))
    built = build(manifest=manifest, adapter=Path("/adapter"))
    assert built["enable_lora"]
    assert built["max_lora_rank"] == told


def test_a_merged_adapter_needs_no_lora() -> None:
    assert "enable_lora" not in build()


def test_the_users_environment_stands_but_for_the_network() -> None:
    theirs = {"VLLM_LOGGING_LEVEL": "DEBUG", "HF_HUB_OFFLINE": "0"}
    ours = engine_environment(cpu=False, ranks=1, environment=theirs)
    assert "VLLM_LOGGING_LEVEL" not in ours
    assert ours["HF_HUB_OFFLINE"] == "1"
    assert ours["VLLM_NO_USAGE_STATS"] == "1"


@pytest.mark.parametrize(
    ("cpus", "quota", "ranks", "expected"),
    [
        ({0, 1}, None, 1, {"VLLM_CPU_OMP_THREADS_BIND": "0,1"}),
        ({4, 5, 6}, 8.0, 1, {"VLLM_CPU_OMP_THREADS_BIND": "4,5,6"}),
        (set(range(64)), None, 1, {}),
        (set(range(4)), None, 2, {}),
    ],
    ids=["few", "quota-above", "many", "ranks"],
)
def test_threads_go_by_the_cpus_a_process_may_use(
    monkeypatch: pytest.MonkeyPatch,
    cpus: set[int],
    quota: float | None,
    ranks: int,
    expected: dict[str, str],
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: cpus)
    monkeypatch.setattr(arguments, "_cpu_quota", lambda: quota)
    found = engine_environment(cpu=True, ranks=ranks, environment={})
    threads = {key: one for key, one in found.items() if "OMP" in key}
    assert threads == expected


@pytest.mark.parametrize(("quota", "threads"), [(3.5, 3), (0.5, 1)])
def test_under_a_quota_pods_of_a_node_do_not_pile_up_on_its_first_cpus(
    monkeypatch: pytest.MonkeyPatch, quota: float, threads: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(64)))
    monkeypatch.setattr(arguments, "_cpu_quota", lambda: quota)
    seen = set()
    for _ in range(20):
        found = engine_environment(cpu=True, ranks=1, environment={})
        cpus = found["VLLM_CPU_OMP_THREADS_BIND"].split(",")
        assert len(set(cpus)) == threads
        seen.add(tuple(cpus))
    assert len(seen) > 1


@pytest.mark.parametrize(
    ("installed", "preloaded", "expected"),
    [
        ("libtcmalloc_minimal.so.4", "", "libtcmalloc_minimal.so.4"),
        ("libtcmalloc_minimal.so.4", "mine.so", "libtcmalloc_minimal.so.4:mine.so"),
        ("libtcmalloc_minimal.so.4", "/opt/libtcmalloc.so", None),
        (None, "mine.so", None),
    ],
)
def test_tcmalloc_is_used_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, installed: str | None, preloaded: str, expected: str | None
) -> None:
    monkeypatch.setattr(arguments, "find_library", lambda _name: installed)
    found = engine_environment(cpu=True, ranks=1, environment={"LD_PRELOAD": preloaded})
    assert found.get("LD_PRELOAD") == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_a_containers_cpu_quota_is_read(
    tmp_path: Path, files: dict[str, str], expected: float | None
) -> None:
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert arguments._cpu_quota(tmp_path) == expected


def test_running_eagerly_needs_no_compiler() -> None:
    """On a machine without a C++ compiler nothing is compiled, unless the user wants it."""
    found = engine_environment(cpu=True, ranks=1, eager=True, environment={})
    assert found["TORCH_COMPILE_DISABLE"] == "1"
    assert "TORCH_COMPILE_DISABLE" not in engine_environment(cpu=True, ranks=1, environment={})
