"""vLLM's arguments, without vLLM."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.toy_adapter import toy_encoder_manifest, toy_manifest
from worker.contract import Code, Lora
from worker.engine.arguments import EngineSettings, answer_tokens, engine_arguments
from worker.errors import SettingsError

KNOWN = {
    "block_size",
    "distributed_executor_backend",
    "dtype",
    "hf_overrides",
    "kv_cache_memory_bytes",
    "max_model_len",
    "max_num_seqs",
    "model",
    "tensor_parallel_size",
}


def build(
    cpu: bool = True, environment: dict[str, str] | None = None, **changes: Any
) -> dict[str, Any]:
    settings = replace(EngineSettings(Path("/base"), toy_manifest()), **changes)
    return engine_arguments(
        settings, cpu=cpu, known=KNOWN, environment=environment or {}, in_core="UniProcExecutor"
    )


@pytest.mark.parametrize(
    ("capability", "gibibytes", "dtype"),
    [
        ("AVX2", 0.25, "float32"),
        ("AVX2", 14.0, "bfloat16"),
        ("AVX512", 0.25, "bfloat16"),
        ("DEFAULT", 0.25, "bfloat16"),
    ],
)
def test_a_small_model_is_computed_in_what_the_processor_can(
    tmp_path: Path, capability: str, gibibytes: float, dtype: str
) -> None:
    """``engine_args`` override it."""
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(int(gibibytes * 2**30))
    settings = EngineSettings(tmp_path, toy_manifest())
    given: dict[str, Any] = {"known": KNOWN, "environment": {}, "capability": capability}
    assert engine_arguments(settings, cpu=True, **given)["dtype"] == dtype
    assert "dtype" not in engine_arguments(settings, cpu=False, **given)
    chosen = replace(settings, engine_args={"dtype": "float16"})
    assert engine_arguments(chosen, cpu=True, **given)["dtype"] == "float16"


def test_the_window_holds_the_longest_prompt_and_one_code() -> None:
    manifest = toy_manifest()
    assert build()["max_model_len"] == manifest.prompt.max_prompt_tokens + 1


def test_the_window_holds_an_answer_up_to_where_codes_differ() -> None:
    plain = toy_manifest()
    rest = dict(zip(plain.codes, ((7, 8, 5, 1), (7, 8, 6), (7, 8, 9)), strict=True))
    manifest = toy_manifest(codes={label: Code("w", 7, ids) for label, ids in rest.items()})
    assert build(manifest=manifest)["max_model_len"] == manifest.prompt.max_prompt_tokens + 4


def test_a_kind_without_codes_is_no_reason_to_fail() -> None:
    """A cascade's engine is told of its encoder too, and an engine refuses one by its kind."""
    assert answer_tokens(toy_encoder_manifest()) == 1


def test_a_misspelt_key_is_reported_with_the_nearest_one() -> None:
    with pytest.raises(SettingsError, match=r"engine_args\.max_num_seq .*'max_num_seqs'"):
        build(engine_args={"max_num_seq": 1})


@pytest.mark.parametrize(
    "key", ["model", "enable_log_requests", "logprobs_mode", "enable_lora", "runner"]
)
def test_what_the_adapter_decides_cannot_be_set(key: str) -> None:
    with pytest.raises(SettingsError, match=rf"engine_args\.{key} cannot be set"):
        build(engine_args={key: "x"})


@pytest.mark.parametrize("window", [10, "auto"])
def test_a_window_too_short_for_the_prompt_is_refused(window: object) -> None:
    with pytest.raises(SettingsError, match="max_model_len"):
        build(engine_args={"max_model_len": window})


@pytest.mark.parametrize(("rank", "allowed"), [(8, 8), (16, 16), (24, 32)])
def test_a_served_adapter_gets_its_rank_and_no_more(rank: int, allowed: int) -> None:
    manifest = toy_manifest(lora=Lora(rank, 32.0, ("q_proj",)))
    built = build(manifest=manifest, adapter=Path("/adapter"))
    assert built["enable_lora"]
    assert built["max_lora_rank"] == allowed


def test_only_the_layers_of_a_fixed_adapter_are_prepared() -> None:
    manifest = toy_manifest(lora=Lora(8, 32.0, ("v_proj", "q_proj")))
    fixed = build(manifest=manifest, adapter=Path("/adapter"))
    assert fixed["lora_target_modules"] == ["q_proj", "v_proj"]
    followed = build(manifest=manifest, adapter=Path("/adapter"), max_adapters=3)
    assert "lora_target_modules" not in followed


def test_no_graphs_for_decoding_are_captured_for_answers_of_one_token() -> None:
    piecewise = {"cudagraph_mode": "PIECEWISE"}
    assert build(cpu=False)["compilation_config"] == piecewise
    assert "compilation_config" not in build()
    codes = {label: Code("w", 7, (7, at)) for at, label in enumerate(toy_manifest().codes)}
    assert "compilation_config" not in build(cpu=False, manifest=toy_manifest(codes=codes))


def test_on_a_cpu_the_core_computes_by_itself() -> None:
    known = {"VLLM_CPU_OMP_THREADS_BIND": "0,1"}
    assert build(environment=known)["distributed_executor_backend"].endswith("UniProcExecutor")
    for named in ("auto", "nobind"):
        built = build(environment={"VLLM_CPU_OMP_THREADS_BIND": named})
        assert "distributed_executor_backend" not in built
    assert "distributed_executor_backend" not in build()
    assert "distributed_executor_backend" not in build(cpu=False, environment=known)
