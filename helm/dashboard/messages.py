"""The messages: the labels given, and the confidence in them."""

from __future__ import annotations

from helm.dashboard.grafana import BLUE, ORANGE, YELLOW, Placed, bars, graph, heat, query, table
from helm.dashboard.queries import LABELLED, OF, RECORDS, in_range, mean, quantile, rate

ADAPTER = {
    "namespace": "Namespace",
    "job": "Job",
    "name": "Adapter",
    "adapter": "Digest",
    "taxonomy_version": "Taxonomy",
}


def _of_threshold(metric: str, signal: str) -> str:
    """A drift statistic as a ratio of its threshold, by worker."""
    return f'{metric}{{{OF}}} / ignoring (signal) clerk_drift_threshold{{signal="{signal}", {OF}}}'


_STAGES = rate("clerk_stage_records_total", "stage")
_ANSWERED = rate("clerk_stage_records_total")

PANELS: list[Placed] = [
    (
        8,
        9,
        bars(
            "Labels in the time range",
            "How many messages got each label.",
            [query(f"sort_desc({in_range('clerk_labels_total', 'label')})", "{{label}}", True)],
            unit="short",
        ),
    ),
    (
        16,
        9,
        graph(
            "Labels",
            "Messages per minute by label. A label that vanishes or doubles overnight: the "
            "messages have changed, or the adapter has.",
            [query(f"60 * {rate('clerk_labels_total', 'label')}", "{{label}}")],
            unit="short",
            stacked=True,
        ),
    ),
    (
        8,
        8,
        graph(
            "Confidence",
            "Calibrated probability of the labels given: of those with 0.9, nine in ten should be "
            "correct.",
            [
                query(mean("clerk_confidence"), "mean"),
                query(quantile(0.1, "clerk_confidence"), "10th percentile"),
            ],
            unit="percentunit",
            highest=1,
            colours={"mean": BLUE, "10th percentile": ORANGE},
        ),
    ),
    (
        8,
        8,
        heat(
            "Distribution of confidence",
            "Messages by confidence. A band at the top is normal; a second one further down is a "
            "kind of message that the adapter does not know.",
            [query(rate("clerk_confidence_bucket", "le"), "{{le}}", form="heatmap")],
            unit="percentunit",
        ),
    ),
    (
        8,
        8,
        graph(
            "Share for review",
            "Share of labels that a person should look at: low confidence, or high off-label mass.",
            [
                query(
                    rate(RECORDS, more='outcome="review"') + " / " + rate(RECORDS, more=LABELLED),
                    "for review",
                )
            ],
            unit="percentunit",
            soft_highest=0.2,
            colours={"for review": YELLOW},
        ),
    ),
    (
        8,
        8,
        graph(
            "Off-label mass",
            "Probability that the model assigns to answers that are no label. Rises when messages "
            "fit none. Empty with a classification head: see Drift.",
            [
                query(mean("clerk_off_label_mass"), "mean"),
                query(quantile(0.9, "clerk_off_label_mass"), "90th percentile"),
            ],
            unit="percentunit",
            soft_highest=0.2,
            colours={"mean": BLUE, "90th percentile": ORANGE},
        ),
    ),
    (
        8,
        8,
        graph(
            "Dead letters by reason",
            "Per minute. The reasons are explained in docs/records.md; for deadline_exceeded, "
            "engine_rejected, invalid_answer and output_too_large the message is not to blame.",
            [query(f"60 * {rate('clerk_dead_letters_total', 'reason')} > 0", "{{reason}}")],
            unit="short",
            stacked=True,
            no_value="none",
        ),
    ),
    (
        8,
        8,
        graph(
            "Shortened messages",
            "Share of messages longer than the adapter's budget, whose middle was left out.",
            [query(f"{rate('clerk_truncated_messages_total')} / {rate(RECORDS)}", "shortened")],
            unit="percentunit",
            soft_highest=0.05,
            colours={"shortened": ORANGE},
        ),
    ),
    (
        8,
        8,
        graph(
            "Waiting to be tried again",
            "Messages on the retry topic that are not done, and those put on it per minute; none "
            "where there is no such topic. Where the first only grows, the engine stays ill.",
            [
                query(f"sum(clerk_retry_waiting_records{{{OF}}}) or vector(0)", "waiting"),
                query(f"60 * {rate('clerk_retried_records_total', 'reason')}", "{{reason}}"),
            ],
            unit="short",
            colours={"waiting": BLUE},
        ),
    ),
    (
        8,
        8,
        graph(
            "Drift",
            "How far the last full window is from the adapter's training data, relative to the "
            "threshold from which it counts as drifted; of the worst worker. One window above 100 "
            "% may be chance; the alert waits for more. See docs/drift.md.",
            [
                query(f"max({_of_threshold('clerk_drift_label_psi', 'labels')})", "labels"),
                query(
                    f"max({_of_threshold('clerk_drift_off_label_ratio', 'off_label')})", "off-label"
                ),
            ],
            unit="percentunit",
            soft_highest=1,
            colours={"labels": BLUE, "off-label": ORANGE},
        ),
    ),
    (
        8,
        8,
        graph(
            "Label shift against the training data",
            "Each label's share of the last full windows minus its share of the training data; the "
            "mean over the workers.",
            [query(f"avg by (label) (clerk_drift_label_shift{{{OF}}})", "{{label}}")],
            unit="percentunit",
        ),
    ),
    (
        8,
        8,
        graph(
            "Answers by stage of a cascade",
            "Share of the labels that each stage gives, and of those that an earlier stage would "
            "have given otherwise; none where no cascade serves. A small model that answers less "
            "than on validation (clerk_stage_expected_ratio): the messages have changed.",
            [
                query(f"{_STAGES} / on () group_left () {_ANSWERED}", "stage {{stage}}"),
                query(f"{rate('clerk_stage_disagreements_total')} / {_ANSWERED}", "disagreed"),
            ],
            unit="percentunit",
            highest=1,
            colours={"disagreed": ORANGE},
            no_value="none",
        ),
    ),
    (
        24,
        5,
        table(
            "Adapters in service",
            "The main adapters that serve now, and the number of workers with each. Two rows for "
            "long: a worker does not follow the store.",
            [
                query(
                    f"count by ({', '.join(ADAPTER)}) (clerk_adapter_info{{{OF}}})",
                    "",
                    True,
                    "table",
                )
            ],
            names={**ADAPTER, "Value": "Workers"},
        ),
    ),
]
