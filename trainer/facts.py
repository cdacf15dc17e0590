"""An adapter's records as tables and (name, text) rows, shared by report, terminal and model card.

Nothing here reads a file or imports a slow library, because ``publish`` writes the card.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer import numbers
from trainer.artifacts.duel import CandidateFigures, CostRecord, DuelRecord, Elsewhere
from trainer.artifacts.evaluation import EvaluationRecord, Prediction, TaughtFigures
from trainer.artifacts.training import Difference, Imported, ValidationFigures
from trainer.languages import language_names
from trainer.numbers import decimal, interval, money, percent, points, probability, significant
from trainer.statistics.calibration import ece_by_chance
from trainer.statistics.figures import LabelFigures
from trainer.statistics.metrics import share_interval

Facts = Iterator[tuple[str, str]]

MOST_CONFUSIONS = 6


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under columns; the first ``words`` columns hold words, the others numbers. Cells of a
    page may be markup. ``marked`` are the positions of highlighted rows."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    words: int = 1
    marked: Sequence[int] = ()


def overall(record: EvaluationRecord) -> Facts:
    """Yield accuracy, macro-F1, and the proof that the hold-out was not trained on."""
    effect = record.design_effect
    counted = f" (as {numbers.count(record.examples / effect)} independent ones)"
    yield "held-out messages", numbers.count(record.examples) + (counted if effect > 1 else "")
    yield "accuracy", f"{percent(record.accuracy)} ({interval(record.accuracy_interval_95)})"
    yield "macro-F1", decimal(record.macro_f1)
    if sources := record.dataset.holdout_sources:
        yield "its labels by", sources_in_words(sources)
    if sources := record.dataset.validation_sources:
        yield "labels of validation by", sources_in_words(sources)
    if record.taught:
        yield from taught(record.taught)
    if proof := record.disjoint:
        yield (
            "seen in training or validation",
            (
                f"{numbers.count(proof.copies)} copies, "
                f"{numbers.count(proof.near_copies)} near-copies (Jaccard {proof.similarity:g}), "
                f"{numbers.count(proof.same_ids)} others by their id, compared with "
                f"{numbers.counted(proof.seen_messages, 'message')}"
            ),
        )


def sources_in_words(sources: Mapping[str, int]) -> str:
    """Return who gave how many labels."""
    return ", ".join(f"{name} {numbers.count(count)}" for name, count in sources.items())


def taught(found: TaughtFigures) -> Facts:
    """Yield the accuracy against people with the teacher's help, and what the two have in
    common."""
    pool, compared = numbers.count(found.pool), numbers.counted(found.compared, "held-out message")
    yield (
        "accuracy, with the teacher's help",
        (
            f"{percent(found.accuracy)} ({interval(found.accuracy_interval_95)}): against people, "
            f"by the hold-out and the teacher's labels of {pool} messages that were not learnt"
        ),
    )
    yield (
        "the teacher itself",
        (
            f"right in {percent(found.teacher_accuracy)} "
            f"({interval(found.teacher_accuracy_interval_95)}) of {compared}"
        ),
    )
    yield (
        "agreement with the teacher",
        (
            f"{percent(found.agreement)} ({interval(found.agreement_interval_95)}) of {pool}; this "
            "is not accuracy"
        ),
    )
    related = "not known: one of them makes none"
    if found.error_correlation is not None:
        related = (
            f"{decimal(found.error_correlation)} (0: independent; near 1 it repeats the teacher's, "
            "and the teacher's labels help little)"
        )
    yield (
        "mistakes in common",
        (
            f"{numbers.count(found.both_wrong)} of both, {numbers.count(found.adapter_wrong)} of "
            f"the adapter alone, {numbers.count(found.teacher_wrong)} of the teacher alone; "
            f"correlation {related}"
        ),
    )
    yield (
        "within reach",
        (
            f"{interval(found.reachable)} right, where the teacher gives a label, by agreement and "
            f"the teacher's accuracy alone ({interval(found.reachable_95)} within the interval of "
            "that accuracy); a model that only repeats this teacher gets "
            f"{percent(found.teacher_accuracy)}"
        ),
    )


def calibration(record: EvaluationRecord) -> Facts:
    """Yield how far confidence is from accuracy. The temperature is fitted on validation only."""
    found = record.calibration
    chance = ""
    if found.reliability:
        chance = f"; perfect confidences show up to {percent(error_by_chance(record))}"
    before = percent(found.ece_uncalibrated)
    yield "calibration error (ECE)", f"{percent(found.ece)} (uncalibrated {before}{chance})"
    before = decimal(found.nll_uncalibrated)
    yield "negative log-likelihood", f"{decimal(found.nll)} nats (uncalibrated {before})"
    yield "temperature", decimal(found.temperature)


def error_by_chance(record: EvaluationRecord) -> float:
    """Return the calibration error that perfect confidences show on as many messages."""
    # With the design effect, as in the gate: messages of one thread are right or wrong together.
    return ece_by_chance(record.calibration.reliability, effect=record.design_effect)


def review(record: EvaluationRecord) -> Facts:
    """Yield the share sent to review, and the accuracy of the rest."""
    # Intervals with the design effect, as everywhere: messages of one thread are right or wrong
    # together, and the page once took them for independent ones.
    found, examples, effect = record.review, record.examples, record.design_effect
    bounds = interval(share_interval(found.share, examples, effect))
    yield "sent to review", f"{percent(found.share)} ({bounds})"
    limits = {
        "confidence below": percent(found.confidence_below),
        "off-label mass above": percent(found.off_label_mass_above),
        "out-of-scope score above": significant(found.out_of_scope_above),
    }
    given = [f"{name} {limit}" for name, limit in limits.items() if limit != numbers.NONE]
    yield "sent to review if", " or ".join(given) or "never"
    right = "everything goes to review"
    if found.accepted_accuracy is not None:
        kept = examples - round(found.share * examples)
        bounds = interval(share_interval(found.accepted_accuracy, kept, effect))
        right = f"{percent(found.accepted_accuracy)} ({bounds})"
    yield "accuracy of the rest", right
    yield (
        f"for {percent(found.wanted_precision)} precision",
        (
            f"a confidence of {decimal(found.threshold_for_wanted)} by validation: "
            f"{percent(found.coverage_at_wanted)} need no review, of those "
            f"{percent(found.accuracy_at_wanted)} are right"
        ),
    )
    yield (
        "extra review for the guarantee",
        (
            f"{percent(found.coverage_by_point - found.coverage_at_wanted)}; a threshold "
            f"without the guarantee leaves {percent(found.coverage_by_point)} without review, "
            f"{percent(found.accuracy_by_point)} of them right, and misses the precision half "
            "the time"
        ),
    )


def thresholds_from(validation: ValidationFigures) -> str:
    """Return the messages on which temperature and thresholds were chosen."""
    if validation.folds is None:
        return numbers.counted(validation.examples, "validation message")
    return (
        f"all {numbers.count(validation.examples)} messages that are not held out, each scored by "
        f"one of {validation.folds} models that did not learn it; the adapter has learnt all"
    )


def outside_labels(record: EvaluationRecord) -> Facts:
    """Yield how many answers are not labels, and how messages that fit no label are detected."""
    outside = record.outside_labels
    free = "not measured without it"
    if outside.unconstrained is not None:
        share = percent(outside.unconstrained_share)
        free = f"{numbers.count(outside.unconstrained)} ({share}) without it"
    constrained = numbers.count(outside.constrained)
    yield "answers outside the labels", f"{constrained} with the constraint, {free}"
    if mass := record.off_label_mass:
        spread = f"mean {significant(mass.mean)}, p50 {significant(mass.p50)}"
        yield "off-label mass", f"{spread}, p99 {significant(mass.p99)}"
    if (score := record.out_of_scope_score) and record.head:
        spread = f"mean {significant(score.mean)}, p99 {significant(score.p99)}"
        yield f"out-of-scope score ({record.head.out_of_scope})", spread
    if scope := record.out_of_scope:
        other = scope.auroc_off_label_mass, "off-label mass"
        if other[0] is None:
            other = scope.auroc_out_of_scope, "out-of-scope score"
        yield (
            "messages that fit no label",
            (
                f"{percent(scope.review_share)} of {numbers.count(scope.messages)} go to review; "
                f"AUROC of confidence {decimal(scope.auroc_confidence)}, of {other[1]} "
                f"{decimal(other[0])}"
            ),
        )


def steering(record: EvaluationRecord) -> Table:
    """Return how often a sentence that names another label chooses it, by family of sentences;
    empty if not measured."""
    found = record.steering
    columns = ("sentences", "pairs", "flips", "neutral", "without review", "neutral")
    if found is None:
        return Table(columns, ())
    kinds = [("all", found.every, found.unreviewed)] + [
        (
            each.family.replace("_", " ")
            + (" (no such sentence in training)" if each.unseen else ""),
            each.every,
            each.unreviewed,
        )
        for each in found.families
    ]
    rows = [
        (
            name,
            numbers.count(every.pairs),
            *(
                percent(count / flips.pairs)
                for flips in (every, unreviewed)
                for count in (flips.steered, flips.neutral)
            ),
        )
        for name, every, unreviewed in kinds
    ]
    return Table(columns, rows, marked=(0,))


def agreement(record: EvaluationRecord) -> Facts:
    """Yield whether two engines agree."""
    if found := record.agreement:
        yield (
            "transformers and the worker",
            (
                f"{numbers.count(found.labels_differ)} of {numbers.count(found.messages)} labels "
                f"differ, confidences by up to {significant(found.max_confidence_difference)} "
                f"({significant(found.tolerance)} allowed)"
            ),
        )


def labels(record: EvaluationRecord) -> Table:
    """Return each label's figures, in the taxonomy's order."""
    return Table(
        ("label", "precision", "recall", "F1", "messages"),
        [
            (
                each.label,
                percent(each.precision),
                percent(each.recall),
                decimal(each.f1),
                numbers.count(each.support),
            )
            for each in record.per_label
        ],
    )


_LEAST_OF_A_LANGUAGE = 20


def by_language(predictions: Sequence[Prediction], effect: float) -> Table | None:
    """Return the accuracy in each language with 20 held-out messages or more, the commonest first;
    None if that is one. ``effect``: the design effect of messages that belong together."""
    counts = Counter(each.language for each in predictions if each.language)
    found = [(code, n) for code, n in counts.most_common() if n >= _LEAST_OF_A_LANGUAGE]
    if len(found) < 2:
        return None
    rows = []
    for code, n in found:
        some = [each for each in predictions if each.language == code]
        right = sum(each.predicted == each.label for each in some) / n
        filed = sum(not each.review for each in some) / n
        span = interval(share_interval(right, n, effect))
        name = language_names([code])
        rows.append((name, percent(right), span, percent(filed), numbers.count(n)))
    return Table(("language", "right", "95 %", "without review", "messages"), rows)


def recall_interval(figures: LabelFigures) -> tuple[float, float]:
    """Return the 95 % interval of a label's recall."""
    return share_interval(figures.recall, figures.support, figures.effect)


def precision_interval(record: EvaluationRecord, figures: LabelFigures) -> tuple[float, float]:
    """Return the 95 % interval of a label's precision."""
    at = record.labels.index(figures.label)
    given = sum(row[at] for row in record.confusion)
    return share_interval(figures.precision, given, record.design_effect)


def confusions(record: EvaluationRecord) -> Table:
    """Return the pairs of labels that are confused most often."""
    cells = [
        (count, record.labels[at], record.labels[other])
        for at, row in enumerate(record.confusion)
        for other, count in enumerate(row)
        if at != other and count
    ]
    cells.sort(key=lambda cell: -cell[0])
    rows = [(label, other, numbers.count(count)) for count, label, other in cells]
    return Table(("label", "mistaken for", "messages"), rows[:MOST_CONFUSIONS], words=2)


def engines(record: EvaluationRecord) -> Table:
    """Return the speed of each engine; latency is that of a single message."""
    return Table(
        ("engine", "messages", "accuracy", "messages/s", "alone: p50", "p99", "machine"),
        [
            (
                each.name,
                numbers.count(each.messages),
                percent(each.accuracy),
                significant(each.messages_per_s),
                f"{significant(each.latency_ms.p50)} ms" if each.latency_ms else numbers.NONE,
                f"{significant(each.latency_ms.p99)} ms" if each.latency_ms else numbers.NONE,
                each.machine,
            )
            for each in record.engines
        ],
    )


def is_adapter(candidate: CandidateFigures) -> bool:
    """Whether a duel's candidate is the adapter itself."""
    return candidate.kind == "adapter"


def ranked(duel: DuelRecord) -> list[CandidateFigures]:
    """Return the candidates, the most accurate first."""
    # Equals by name, so that one record always gives the same page.
    return sorted(duel.candidates, key=lambda candidate: (-candidate.accuracy, candidate.name))


def candidates(duel: DuelRecord) -> Table:
    """Return the candidates of a duel, the most accurate first, the adapter marked."""
    found = ranked(duel)
    return Table(
        ("candidate", "accuracy", "95 %", "macro-F1", "trained", "msg/s", "outside"),
        [
            (
                each.name,
                percent(each.accuracy),
                interval(each.accuracy_interval_95),
                decimal(each.macro_f1),
                numbers.duration(each.train_seconds),
                significant(each.messages_per_s),
                numbers.count(each.outside_labels),
            )
            for each in found
        ],
        marked=[at for at, each in enumerate(found) if is_adapter(each)],
    )


def pairs(duel: DuelRecord) -> Table:
    """Return the differences of a duel, the adapter less each other, in percentage points."""
    return Table(
        ("adapter less", "points", "95 %", "right alone", "p (Holm)", "at worst", "p (margin)"),
        [
            (
                each.b,
                points(each.difference).removesuffix(" points"),
                numbers.points_interval(each.interval_95),
                f"{numbers.count(each.a_only)} : {numbers.count(each.b_only)}",
                probability(each.p_holm),
                points(-each.worst_difference).removesuffix(" points"),
                probability(each.non_inferiority_p),
            )
            for each in duel.pairs
        ],
    )


def imported(found: Imported) -> Facts:
    """Yield where an imported model comes from, and how what is served differs from it."""
    yield "imported from", f"{found.source} ({found.form})"
    said = f"not these messages, as said at the import: {found.unseen}"
    yield "what it learnt", said if found.unseen else "unknown; perhaps these messages"
    messages = numbers.counted(found.served.messages, "validation message")
    both = f"{percent(found.original_accuracy)}, as served {percent(found.served_accuracy)}"
    yield f"accuracy of the original on {messages}", both
    if found.graph is not None:
        yield "original and exported file, same prompts", _difference(found.graph)
    if found.text is not None:
        yield "original, with its own prompts and with ours", _difference(found.text)
    yield "original with its own prompts, and as served", _difference(found.served)
    if (prompts := found.prompts) is not None:
        same = f"{prompts.same_tokens:,} of {prompts.compared:,}"
        first = prompts.first_difference
        from_ = "" if first is None else f"; others differ from token {first} on"
        yield "prompts with the same tokens as in training", same + from_
    if found.raw is not None:
        raw = numbers.counted(found.raw.messages, "message")
        yield f"the same, on {raw} as they arrive", _difference(found.raw)


def _difference(found: Difference) -> str:
    labels = f"{found.labels_differ:,} of {found.messages:,} labels differ"
    most = found.max_probability_difference
    return labels if most is None else f"{labels}, probabilities by at most {most:.2g}"


def elsewhere(duel: DuelRecord) -> Table | None:
    """Return what the answers of models that run elsewhere took; None without such a model."""
    verdicts = {each.candidate: each for each in duel.replacements}
    rows = [
        (
            each.name,
            percent(each.accuracy),
            numbers.count(each.outside_labels),
            numbers.count(each.elsewhere.no_label),
            numbers.duration(each.elsewhere.seconds_p50),
            numbers.duration(each.elsewhere.seconds_p99),
            _tokens(each.elsewhere),
            money(None if each.cost_per_message is None else 1000 * each.cost_per_message, 4),
            points(-verdicts[each.name].worst_difference).removesuffix(" points"),
            probability(verdicts[each.name].not_worse_p),
        )
        for each in ranked(duel)
        if each.elsewhere is not None
    ]
    if not rows:
        return None
    columns = ("elsewhere", "accuracy", "invented", "no label", "p50", "p99", "tokens",
               "1,000 messages", "adapter at worst", "p (margin)")  # fmt: skip
    return Table(columns, rows)


def _tokens(took: Elsewhere) -> str:
    """Return the mean tokens of prompt and answer."""
    if took.prompt_tokens is None or took.answer_tokens is None:
        return numbers.NONE
    return f"{took.prompt_tokens:,.0f} + {took.answer_tokens:,.0f}"


def learning_curves(duel: DuelRecord | None) -> dict[str, list[tuple[int, float]]]:
    """Return each candidate's validation accuracy by training examples per label, sorted."""
    found: dict[str, list[tuple[int, float]]] = {}
    for point in duel.learning_curve if duel else ():
        found.setdefault(point.candidate, []).append((point.per_label, point.validation_accuracy))
    return {name: sorted(curve) for name, curve in found.items()}


def learning_curve(duel: DuelRecord) -> Table:
    """Return the learning curves as a table with a column for each size."""
    curves = learning_curves(duel)
    sizes = sorted({size for curve in curves.values() for size, _ in curve})
    rows = [
        (name, *(percent(dict(curve).get(size)) for size in sizes))
        for name, curve in curves.items()
    ]
    return Table(("candidate", *map(numbers.count, sizes)), rows)


def cost(record: CostRecord) -> Facts:
    """Yield the break-even and the bill, in the record's currency."""
    planned, volume = record.planned, numbers.count(record.planned.messages_per_month)
    even = f"never: {record.break_even_reason}"
    days, volumes = record.break_even_days_range, record.pays_from_range
    if planned.break_even_days is not None:
        messages = numbers.count(record.break_even_messages)
        even = (
            f"after {_days(planned.break_even_days)} ({messages} messages), at {volume} messages "
            "a month"
        )
    if len(set(days)) > 1:
        even += f"; with the ranges of the inputs {_range(*map(_days, days))}"
    yield "break-even", even
    cheaper = f"never: {record.pays_from_reason}"
    if record.pays_from_messages_per_month is not None:
        cheaper = f"from {numbers.count(record.pays_from_messages_per_month)} messages a month on"
    if len(set(volumes)) > 1:
        cheaper += f"; with the ranges of the inputs {_range(*map(_volume, volumes))}"
    yield "serving cheaper than hosted", cheaper
    parts = f"training {money(record.training)}, labelling {money(record.labelling)}"
    yield "once", f"{money(record.one_off)} ({parts})"
    yield "a month: adapter", money(planned.serving)
    yield "a month: hosted", money(planned.hosted)
    own = money(record.per_thousand_messages, 4)
    yield "1,000 messages: adapter", f"{own} at the planned utilisation"
    hosted = money(record.hosted_per_thousand, 4)
    if len(set(record.hosted_per_thousand_range)) > 1:
        low, high = (money(each, 4) for each in record.hosted_per_thousand_range)
        hosted += f" ({low} to {high})"
    yield "1,000 messages: hosted", hosted
    for each in record.prices:
        yield (
            f"price: {each.name}",
            f"{each.per_hour:g} {each.currency} an hour on {each.date}, {each.source}"
            + (f". STALE: read {each.age_days:,} days ago; read it again" if each.stale else ""),
        )


def cost_by_volume(record: CostRecord) -> Table:
    """Return the monthly bill at each volume."""
    columns = ("messages a month", "replicas", "serving", "per thousand", "hosted", "saved",
               "break-even")  # fmt: skip
    rows = [
        (
            numbers.count(volume.messages_per_month),
            numbers.count(volume.replicas),
            money(volume.serving),
            money(volume.serving_per_thousand, 4),
            money(volume.hosted),
            money(volume.saving),
            _days(volume.break_even_days),
        )
        for volume in record.by_volume
    ]
    return Table(columns, rows, words=0)


def cost_by_kind(record: CostRecord) -> Table:
    """Return what a million messages cost by way to serve and utilisation, and from which volume
    that is no more than the hosted model."""
    columns = ("served by", "an hour", "msg/s, full", "utilisation", "a million messages",
               "pays from, a month")  # fmt: skip
    rows = [
        (
            each.model,
            _range(*(f"{price:,.3g}" for price in each.price_per_hour)),
            _range(*(f"{speed:,.3g}" for speed in each.messages_per_s)),
            percent(each.utilisation, 0),
            _range(*(money(amount) for amount in each.per_million)),
            _range(*(_volume(volume) for volume in each.pays_from)),
        )
        for each in record.by_kind
    ]
    return Table(columns, rows)


def cost_inputs(record: CostRecord) -> Table:
    """Return every input with its unit and its source."""
    rows = [
        (
            given.name.replace("_", " "),
            given.unit,
            given.source or numbers.NONE,
            numbers.written(given.value),
        )
        for given in record.inputs
    ]
    return Table(("input", "unit", "from", "value"), rows, words=3)


def _volume(messages: float | None) -> str:
    """Return a monthly volume in two digits, as it deserves."""
    if messages is None:
        return "never"
    rounded = float(f"{messages:.2g}")
    return f"{rounded / 1e6:,g} million" if rounded >= 1e6 else f"{rounded:,.0f}"


def _range(first: str, last: str) -> str:
    return first if first == last else f"{first} to {last}"


def _days(days: float | None) -> str:
    return "never" if days is None else numbers.counted(math.ceil(days), "day")
