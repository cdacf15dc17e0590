"""The messages: what the model answers, and how sure it is."""

from __future__ import annotations

from helm.dashboard.grafana import BLUE, ORANGE, YELLOW, Placed, bars, graph, heat, query, table
from helm.dashboard.queries import LABELLED, OF, RECORDS, in_range, mean, quantile, rate

ADAPTER = {
    "namespace": "Namespace",
    "job": "Job",
    "name": "Adapter",
    "digest": "Digest",
    "taxonomy_version": "Taxonomy",
}


def _of_level(metric: str, signal: str) -> str:
    """A figure of drift as a part of its level, by worker."""
    return f'{metric}{{{OF}}} / ignoring (signal) clerk_drift_threshold{{signal="{signal}", {OF}}}'


PANELS: list[Placed] = [
    (
        8,
        9,
        bars(
            "Labels in the time shown",
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
            "Messages per minute by label. A label that vanishes or doubles overnight is news, or"
            " a new adapter.",
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
            "How sure the model is of its labels: the mean, and the value that a tenth of the "
            "messages stay below. Calibrated: of labels given with 0.9, nine in ten are meant to"
            " be right.",
            [
                query(mean("clerk_confidence"), "mean"),
                query(quantile(0.1, "clerk_confidence"), "a tenth is below"),
            ],
            unit="percentunit",
            highest=1,
            colours={"mean": BLUE, "a tenth is below": ORANGE},
        ),
    ),
    (
        8,
        8,
        heat(
            "Confidence, all of it",
            "How many messages were given which confidence. A band at the top is well; a second"
            " one further down is a kind of message the adapter does not know.",
            [query(rate("clerk_confidence_bucket", "le"), "{{le}}", form="heatmap")],
            unit="percentunit",
        ),
    ),
    (
        8,
        8,
        graph(
            "Share for review",
            "Labels that a person should look at: low confidence, or much belief in none of them.",
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
            "Fits no label",
            "The probability the model would give to answers that are no label (off-label mass): "
            "the mean, and what a tenth of the messages exceed. Rises when messages fit nowhere.",
            [
                query(mean("clerk_off_label_mass"), "mean"),
                query(quantile(0.9, "clerk_off_label_mass"), "a tenth is above"),
            ],
            unit="percentunit",
            soft_highest=0.2,
            colours={"mean": BLUE, "a tenth is above": ORANGE},
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
        12,
        8,
        graph(
            "Drift",
            "How far each worker's last whole window is from the adapter's training data, as a part"
            " of the level above which it counts as drifted; the worst worker. One window above "
            "100 % may be chance; the alert waits for more. See docs/drift.md.",
            [
                query(f"max({_of_level('clerk_drift_label_psi', 'labels')})", "mix of labels"),
                query(
                    f"max({_of_level('clerk_drift_off_label_ratio', 'off_label')})", "fits no label"
                ),
            ],
            unit="percentunit",
            soft_highest=1,
            colours={"mix of labels": BLUE, "fits no label": ORANGE},
        ),
    ),
    (
        12,
        8,
        graph(
            "Labels, less their share in the training data",
            "In the last whole windows, the mean over the workers: which labels come more often "
            "than the adapter was made for, and which less.",
            [query(f"avg by (label) (clerk_drift_label_shift{{{OF}}})", "{{label}}")],
            unit="percentunit",
        ),
    ),
    (
        24,
        5,
        table(
            "Who answers",
            "The adapters that serve now and the number of their workers. Two rows for longer than "
            "a rollout: a worker was not restarted.",
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
