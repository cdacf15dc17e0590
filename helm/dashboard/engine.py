"""The engine: vLLM's own metrics, and the worker's view of it."""

from __future__ import annotations

from helm.dashboard.grafana import BLUE, GREEN, ORANGE, PURPLE, RED, YELLOW, Placed, graph, query
from helm.dashboard.queries import OF, WORKERS, quantile, rate


def of_our_pods(metric: str) -> str:
    """A figure of DCGM's exporter, for the GPUs that the workers' pods hold.

    The exporter names the pod as ``pod`` or, where its own labels win, ``exported_pod``
    (https://github.com/NVIDIA/dcgm-exporter, --kubernetes).
    """
    ours = f"max by (namespace, pod) (clerk_ready{{{OF}}})"
    plain = f'{metric}{{namespace=~"$namespace", pod!=""}} and on (namespace, pod) {ours}'
    exported = (
        f'label_replace(label_replace({metric}{{exported_namespace=~"$namespace"}}, '
        '"namespace", "$1", "exported_namespace", "(.+)"), '
        f'"pod", "$1", "exported_pod", "(.+)") and on (namespace, pod) {ours}'
    )
    return f"({exported} or {plain})"


GPU = "{{pod}} GPU {{gpu}}"

PANELS: list[Placed] = [
    (
        8,
        8,
        graph(
            "Requests in the engine",
            "As vLLM counts them: running, waiting (max_num_seqs), and preempted, that is evicted "
            "from the cache and computed again (per minute).",
            [
                query(f"sum(vllm:num_requests_running{{{OF}}})", "running"),
                query(f"sum(vllm:num_requests_waiting{{{OF}}})", "waiting"),
                query(f"60 * {rate('vllm:num_preemptions_total')}", "preempted"),
            ],
            unit="short",
            colours={"running": GREEN, "waiting": ORANGE, "preempted": RED},
        ),
    ),
    (
        8,
        8,
        graph(
            "Time in the engine",
            "From submitting a message to its answer. Grows with the number of messages in the "
            "engine.",
            [
                query(quantile(0.5, "clerk_engine_seconds"), "median"),
                query(quantile(0.99, "clerk_engine_seconds"), "99th percentile"),
            ],
            unit="s",
            colours={"median": GREEN, "99th percentile": RED},
        ),
    ),
    (
        8,
        8,
        graph(
            "Utilisation of the engines",
            "Share of the time with at least one message in the engine, over all workers. Near "
            "100 %: full load, or one message after another; see the requests in the engine.",
            [query(f"{rate('clerk_engine_busy_seconds_total')} / {WORKERS}", "busy")],
            unit="percentunit",
            highest=1,
            colours={"busy": BLUE},
        ),
    ),
    (
        8,
        8,
        graph(
            "Prompt tokens",
            "Tokens per second, as the worker counts them: the prompt's fixed part and the text.",
            [query(rate("clerk_prompt_tokens_total"), "prompt tokens")],
            unit="short",
            colours={"prompt tokens": BLUE},
        ),
    ),
    (
        8,
        8,
        graph(
            "Tokens found in the prefix cache",
            "Share of prompt tokens that were computed before. The fixed part of the prompt should "
            "always be found; far less than its share: the cache is disabled or too small.",
            [
                query(
                    rate("vllm:prefix_cache_hits_total")
                    + " / "
                    + rate("vllm:prefix_cache_queries_total"),
                    "found",
                )
            ],
            unit="percentunit",
            highest=1,
            colours={"found": GREEN},
        ),
    ),
    (
        8,
        8,
        graph(
            "Cache memory in use",
            "Share of the engine's key-value cache in use, of the worker with the most.",
            [query(f"max(vllm:kv_cache_usage_perc{{{OF}}})", "in use")],
            unit="percentunit",
            highest=1,
            colours={"in use": BLUE},
        ),
    ),
    (
        8,
        8,
        graph(
            "GPU busy",
            "Share of the time that the streaming multiprocessors had work, of each GPU that a "
            "worker holds; and memory in use. From DCGM's exporter, where there is one.",
            [
                query(f"avg({of_our_pods('DCGM_FI_PROF_GR_ENGINE_ACTIVE')})", "busy"),
                query(f"avg({of_our_pods('DCGM_FI_DEV_GPU_UTIL')}) / 100", "a kernel runs"),
                query(
                    f"max({of_our_pods('DCGM_FI_DEV_FB_USED')} / "
                    f"({of_our_pods('DCGM_FI_DEV_FB_USED')} + "
                    f"{of_our_pods('DCGM_FI_DEV_FB_FREE')}))",
                    "memory, fullest",
                ),
            ],
            unit="percentunit",
            highest=1,
            colours={"busy": GREEN, "a kernel runs": BLUE, "memory, fullest": PURPLE},
        ),
    ),
    (
        8,
        8,
        graph(
            "GPU temperature and power",
            "The hottest GPU (degrees Celsius), and the watts of the one that draws most. One that "
            "is throttled labels slower at the same load.",
            [
                query(f"max({of_our_pods('DCGM_FI_DEV_GPU_TEMP')})", "degrees, hottest"),
                query(f"max({of_our_pods('DCGM_FI_DEV_POWER_USAGE')})", "watts, most"),
            ],
            unit="short",
            colours={"degrees, hottest": ORANGE, "watts, most": YELLOW},
        ),
    ),
    (
        8,
        8,
        graph(
            "GPU errors",
            "The last XID error of a GPU that a worker holds; 0 is none. 48, 63, 64, 79, 94 and 95 "
            "are the card's own: move the pod to another node and have the card looked at.",
            [query(f"max by (pod, gpu) ({of_our_pods('DCGM_FI_DEV_XID_ERRORS')})", GPU)],
            unit="none",
            soft_highest=1,
        ),
    ),
]
