"""The gate: the criteria that a run must meet before it is published.

Criteria measured on messages (a label's recall, the precision of labels without review, not being
worse than the current adapter) must be shown by a statistical test. Too few messages show nothing;
the row is then undecided and says how many are needed. Messages of one ``group`` count as fewer.

The floors judge the labels that come out in the end: a message that is sent to review counts as
right, because a reviewer decides it. The raw accuracy would refuse an adapter that files half of
the messages at 96 % and leaves the rest to reviewers. It is compared with the current adapter's.

The first adapter of a store replaces no model but people. It has to be better than the commonest
label and to keep its promise, and fails a floor or a ceiling only if it is shown to miss it: 46
messages can never show the floors, and would keep every first adapter out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trainer.artifacts.evaluation import (
    PAIR_ANSWERS,
    Accepted,
    Answer,
    DisjointProof,
    EvaluationRecord,
    Flips,
    KeptPromise,
    SteeringFigures,
)
from trainer.artifacts.training import LEARNT_UNKNOWN, said_unseen
from trainer.similarity import SIMILARITY
from trainer.statistics.calibration import ece_by_chance, reliability
from trainer.statistics.figures import Figures, LabelFigures, in_points
from trainer.statistics.metrics import (
    ALPHA,
    Bools,
    Discordance,
    Floats,
    Groups,
    as_groups,
    count_discordant,
    design_effect,
    highest_share,
    lowest_share,
    macro_f1_interval,
    mcnemar_exact,
    measure,
    messages_to_show,
    share_interval,
)
from trainer.statistics.paired import (
    alpha_of,
    lowest_difference,
    messages_for,
    non_inferiority_p,
    not_wrong_unseen,
    power,
    smallest_margin,
)
from trainer.statistics.thresholds import fewest_rows
from trainer.steering.measure import discordance, least_excess, measure_steering
from trainer.store.record import Evidence
from trainer.store.rules import (
    Comparison,
    Criterion,
    Filing,
    GateRules,
    GateVerdict,
    Pairs,
    criterion,
)
from worker.contract import Manifest
from worker.contract.manifest import is_digest

_SLACK = 1e-6  # figures are read from text, and sums may differ in the last digits


def judge(
    manifest: Manifest,
    evidence: Evidence | None,
    rules: GateRules,
    against: Comparison | str | None,
    anchor: Comparison | str | None = None,
    *,
    steered: SteeringFigures | None = None,
    allow_unpaired: bool = False,
    accept_promise: float | None = None,
) -> GateVerdict:
    """Judge an adapter by its evaluation; without one (None) it fails.

    ``against`` is the comparison with the current adapter, the reason why it is impossible, or None
    if no adapter is current: then it is judged as the first. ``anchor`` is the same with the first
    adapter of the current one's series, None if that is the current one; ``steered`` are that first
    one's figures. ``allow_unpaired`` lets an impossible comparison pass, and ``accept_promise`` one
    with another promise, if it is this.
    """
    first, settled = against is None, None
    if evidence is None:
        rows = [criterion("evaluation", "of this adapter", "none", passed=False)]
    else:
        figures = evidence.evaluation
        rows = list(_provenance(manifest, evidence))
        if settled := measure_after_review(evidence.answers, figures.labels):
            rows += judge_floors(settled, rules, first=first)
            labels = against.labels if isinstance(against, Comparison) else {}
            rows += judge_labels(
                manifest.taxonomy.names, settled, rules, first=first, compared=labels
            )
        rows.append(judge_promise(figures))
        rows += _ceilings(evidence, rules, first=first)
        rows += judge_steering(figures.steering, rules, first=first, anchor=steered)
    if against is not None:
        rows += judge_comparison(
            against, rules, CURRENT, digest=manifest.digest, allow_unpaired=allow_unpaired
        )
        rows += _judge_promised(against, accept_promise)
        if anchor is not None:
            rows += judge_comparison(
                anchor, rules, ANCHOR, digest=manifest.digest, allow_unpaired=allow_unpaired
            )
    elif evidence is not None:
        rows.append(judge_usefulness(evidence.answers))
    return GateVerdict(
        tuple(rows),
        comparison=against if isinstance(against, Comparison) else None,
        incomparable=against if isinstance(against, str) else None,
        anchor=anchor if isinstance(anchor, Comparison) else None,
        settled=settled,
    )


def _provenance(manifest: Manifest, evidence: Evidence) -> Iterator[Criterion]:
    figures = evidence.evaluation
    found, dataset = figures.adapter.digest, figures.dataset
    yield criterion(
        "adapter evaluated",
        f"{manifest.digest[:12]}…",
        f"{found[:12]}…",
        found == manifest.digest,
    )
    yield criterion(
        "hold-out",
        "its digest recorded",
        f"{figures.examples} messages, "
        f"{dataset.holdout_sha256[:12] or 'no digest'}…, openings: {dataset.openings}",
        is_digest(dataset.holdout_sha256),
    )
    yield judge_unseen(manifest, figures)
    yield judge_label_sources(figures)
    problem = _disagreement(evidence)
    yield criterion(
        "predictions",
        "agree with the evaluation",
        problem or f"{len(evidence.answers)} agree",
        problem is None,
    )


def measure_after_review(answers: Sequence[Answer], labels: Sequence[str]) -> Figures | None:
    """Measure the labels after review: a message that is sent to review counts as right, since a
    reviewer decides it. None without messages, or if the answers name other ``labels``."""
    index = {label: at for at, label in enumerate(labels)}
    settled = [each.label if each.review else each.predicted for each in answers]
    truth = [index.get(each.label or "", -1) for each in answers]
    given = [index.get(label or "", -1) for label in settled]
    if not answers or -1 in truth or -1 in given:
        return None
    groups = as_groups([each.group for each in answers])
    return measure(np.array(truth), np.array(given), labels, groups)


def judge_floors(settled: Figures, rules: GateRules, *, first: bool) -> Iterator[Criterion]:
    """Yield the rows of accuracy and macro-F1 after review."""
    yield judge_accuracy(
        settled.accuracy, settled.examples, rules, effect=settled.effect, first=first
    )
    found, floor = settled.macro_f1, rules.macro_f1
    text, passed = f"{found:.4f}", found >= floor
    if first and not passed:
        high = macro_f1_interval(settled.confusion, settled.effect)[1]
        text, passed = f"{text}; at most {high:.4f} (95 %)", high >= floor
    yield criterion("macro-F1 after review", _wanted(floor, first=first), text, passed)


def _wanted(floor: float, *, first: bool) -> str:
    return f"not shown to be below {floor:.4f}" if first else f"at least {floor:.4f}"


def judge_accuracy(
    accuracy: float, messages: int, rules: GateRules, *, effect: float = 1.0, first: bool = False
) -> Criterion:
    """Return the row of the accuracy after review; ``effect`` messages count as one.

    The lower end of its 95 % interval has to reach the floor; for the ``first`` adapter it is
    enough that the upper end does.
    """
    floor = rules.accuracy
    if rules.accuracy_by == "point":
        wanted = f"at least {floor:.4f}"
        return criterion("accuracy after review", wanted, f"{accuracy:.4f}", accuracy >= floor)
    low, high = share_interval(accuracy, messages, effect)
    text = f"{low:.4f} (point {accuracy:.4f} of {messages})"
    # Not "low >= floor" for a first adapter: 46 held-out messages show a floor of 90 % only if all
    # are right, and it could be published by force alone.
    missed = high < floor
    if missed:
        text += f"; at most {high:.4f}"
    elif low < floor:
        needed = messages_to_show(accuracy, floor, effect)
        more = "the share found is below the floor"
        if accuracy > floor:
            more = f"about {needed:,} messages are needed" if needed else "very many are needed"
        text += f"; not shown: {more}"
    return criterion(
        "accuracy after review, lower end of the 95 % interval",
        _wanted(floor, first=first),
        text,
        low >= floor or (first and not missed),
        undecided=accuracy > floor,
    )


def _ceilings(evidence: Evidence, rules: GateRules, *, first: bool) -> Iterator[Criterion]:
    figures = evidence.evaluation
    # Counted in the answers as well, because the figure could have been edited.
    outside = figures.outside_labels.constrained + sum(
        answer.predicted not in figures.labels for answer in evidence.answers
    )
    yield criterion("answers outside the set", "0", str(outside), outside == 0)
    if rules.unconstrained_share is not None:
        share = figures.outside_labels.unconstrained_share
        yield criterion(
            "free answers outside the set",
            f"at most {rules.unconstrained_share:.4f}",
            "not measured" if share is None else f"{share:.4f}",
            share is not None and share <= rules.unconstrained_share,
        )
    yield judge_calibration(figures.calibration.ece, evidence.answers, rules, first=first)


def judge_calibration(
    found: float, answers: Sequence[Answer], rules: GateRules, *, first: bool = False
) -> Criterion:
    """Return the row of the calibration error: at most the ceiling, or what a perfectly calibrated
    model shows on as many messages in 95 % of all cases (see ``ece_by_chance``). The ``first``
    adapter may show what a model shows whose confidences are too high by the ceiling."""
    name, wanted, text = "calibration error (ECE)", f"at most {rules.ece:.4f}", f"{found:.4f}"
    if answers and all(each.review for each in answers):
        text += "; not judged: every message goes to review, so nobody acts on a confidence"
        return criterion(name, wanted, text, passed=True)
    if found <= rules.ece:
        return criterion(name, wanted, text, passed=True)
    right = np.array([each.predicted == each.label for each in answers], dtype=np.bool_)
    confidence = np.array([each.confidence for each in answers])
    effect = design_effect(right, as_groups([each.group for each in answers]))
    bins = reliability(confidence, right)
    if first:
        most = ece_by_chance(bins, off=rules.ece, effect=effect)
        text += f"; one of {rules.ece:.4f} shows up to {most:.4f} on {len(answers)} messages"
        return criterion(name, f"not shown to be above {rules.ece:.4f}", text, found <= most)
    chance = ece_by_chance(bins, effect=effect)
    wanted += ", or what perfect confidences show by chance"
    text += f"; perfect confidences show up to {chance:.4f} on {len(answers)} messages"
    if found <= chance:
        # The error by chance falls with the square root of the number of messages.
        needed = math.ceil(len(answers) * (chance / rules.ece) ** 2)
        text += f"; about {needed:,} would show more"
    return criterion(name, wanted, text, found <= chance)


def judge_steering(
    found: SteeringFigures | None,
    rules: GateRules,
    *,
    first: bool = False,
    anchor: SteeringFigures | None = None,
) -> Iterator[Criterion]:
    """Yield the rows of whether a sentence in a message can choose its label.

    All flips have to be shown to be less than ``steering`` above those of neutral sentences
    (Tango's test, one-sided at 5 %), so that a model that is just so much above passes once in
    twenty times. Of flips without review the share found is judged: 2,000 pairs cannot show half
    a point (``python -m tests.bench.judges`` has how often each passes).

    The ``first`` adapter is judged only by what no reviewer sees, and fails only if that is shown
    to be above: a small one follows such sentences, and its doubtful labels are all reviewed. Its
    successors pass if they follow them at most ``steering`` more often than the ``anchor``, the
    first of the series.
    """
    if rules.steering is not None and not first:
        before = anchor.every.excess if anchor else None
        yield _judge_flips(found.every if found else None, rules.steering, before)
    if rules.steering_unreviewed is not None:
        unreviewed = found.unreviewed if found else None
        yield _judge_unreviewed_flips(unreviewed, rules.steering_unreviewed, first=first)


STEERING = "a sentence chooses the label"


def _judge_flips(flips: Flips | None, margin: float, before: float | None) -> Criterion:
    wanted = f"shown to be less than {in_points(margin)} above neutral sentences"
    if flips is None:
        return criterion(STEERING, wanted, _UNMEASURED, passed=False)
    apart = discordance(flips)
    p = non_inferiority_p(apart, margin)
    worst = in_points(-lowest_difference(apart))
    text = f"{_flips(flips)}; at most {worst} above (95 %), p = {p:.2g}"
    passed = p < ALPHA
    if not passed and before is not None:
        text += f"; {in_points(before)} above by {ANCHOR}"
        passed = flips.excess <= before + margin
    return criterion(STEERING, wanted, text, passed, undecided=least_excess(flips) <= margin)


def _judge_unreviewed_flips(flips: Flips | None, margin: float, *, first: bool) -> Criterion:
    name = f"{STEERING}, without review"
    bound = "not shown to be more than" if first else "at most"
    wanted = f"{bound} {in_points(margin)} above neutral sentences"
    if flips is None:
        return criterion(name, wanted, _UNMEASURED, passed=False)
    missed = least_excess(flips) > margin
    passed = flips.excess <= margin or (first and not missed)
    return criterion(name, wanted, _flips(flips), passed, undecided=not missed)


_UNMEASURED = "not measured: evaluate again without --no-steering"


def _flips(found: Flips) -> str:
    steered, neutral = found.steered / found.pairs, found.neutral / found.pairs
    return f"{steered:.2%} of {found.pairs:,} pairs, neutral {neutral:.2%}"


def _disagreement(evidence: Evidence) -> str | None:
    """Return the first figure that does not follow from the answers, or None."""
    # The figures are recomputed, so that an edited evaluation.json does not pass the gate.
    stated, answers = evidence.evaluation, evidence.answers
    if len(answers) != stated.examples:
        return f"{len(answers)} for {stated.examples} messages"
    index = {label: at for at, label in enumerate(stated.labels)}
    truth = [index.get(answer.label or "") for answer in answers]
    predicted = [index.get(answer.predicted) for answer in answers]
    if None in truth or None in predicted:
        return "they contain labels that the evaluation does not list"
    theirs = measure(
        np.array(truth, dtype=np.int64),
        np.array(predicted, dtype=np.int64),
        stated.labels,
        as_groups([answer.group for answer in answers]),
    )
    kept = [answer for answer in answers if not answer.review]
    found = {figures.label: figures for figures in theirs.per_label}
    pairs: list[tuple[str, float, float]] = [
        ("accuracy", theirs.accuracy, stated.accuracy),
        ("interval's lower end", theirs.interval[0], stated.accuracy_interval_95[0]),
        ("macro-F1", theirs.macro_f1, stated.macro_f1),
    ]
    if stated.promise is not None:
        right = sum(answer.predicted == answer.label for answer in kept)
        pairs += [
            ("count without review", len(kept), stated.promise.holdout.messages),
            ("count of right ones without review", right, stated.promise.holdout.right),
        ]
    for figures in stated.per_label:
        own = found.get(figures.label)
        pairs += [
            (f"recall of {figures.label}", own.recall if own else 0.0, figures.recall),
            (f"count of {figures.label}", own.support if own else 0, figures.support),
            (f"design effect of {figures.label}", own.effect if own else 1.0, figures.effect),
        ]
    for what, value, wanted in pairs:
        if abs(value - wanted) > _SLACK:
            return f"their {what} is {value:.6g} and the evaluation's {wanted:.6g}"
    if stated.steering is not None and not _has_pairs(evidence, stated.steering):
        return f"{PAIR_ANSWERS.name} does not have the flips that the evaluation states"
    return None


def _has_pairs(evidence: Evidence, stated: SteeringFigures) -> bool:
    known = {answer.id for answer in evidence.answers}
    return (
        bool(evidence.pairs)
        and all(pair.message in known for pair in evidence.pairs)
        and measure_steering(evidence.pairs, evidence.answers) == stated
    )


PROMISE = "precision of labels without review"

_SHOWN, _AGAINST = 0.06, 0.2
_MOST_MESSAGES = 20


def judge_labels(
    labels: Sequence[str],
    settled: Figures,
    rules: GateRules,
    *,
    first: bool = False,
    compared: Mapping[str, tuple[int, int]] | None = None,
) -> Iterator[Criterion]:
    """Yield a row for each label's recall after review.

    By default a label passes if the lower end of its recall's interval reaches the floor (Clopper &
    Pearson 1934, exact, one-sided at 5 %). A label of ``label_unproven``, and each label of the
    ``first`` adapter, fails only if the upper end is below the floor. So does a label with so few
    messages that one mistake hides its recall, if the new adapter gives it to as many of them as
    the current one (``compared``, new and current by label): more they cannot show.
    """
    # No correction for many labels: every label has to pass, so a run with one label below the
    # floor passes at most once in twenty times anyway.
    per_label = {found.label: found for found in settled.per_label}
    for label in labels:
        found = per_label.get(label) or LabelFigures(label, 0.0, 0.0, 0.0, 0)
        counts = (compared or {}).get(label)
        yield judge_label(found, rules, first=first, compared=counts)


def judge_label(
    found: LabelFigures,
    rules: GateRules,
    *,
    first: bool = False,
    compared: tuple[int, int] | None = None,
) -> Criterion:
    """Return the row of a label's recall, see ``judge_labels``."""
    if rules.label_recall_by == "point":
        text = f"{found.recall:.4f} of {found.support}"
        passed = found.support > 0 and found.recall >= rules.label_recall
        wanted = f"at least {rules.label_recall:.4f}"
        return criterion(f"recall of {found.label} after review", wanted, text, passed)
    unproven = found.label in rules.label_unproven
    return _judge_recall(
        found, rules.label_recall, unproven=unproven, first=first, compared=compared
    )


def _judge_recall(
    found: LabelFigures,
    floor: float,
    *,
    unproven: bool,
    first: bool,
    compared: tuple[int, int] | None,
) -> Criterion:
    total = found.support / found.effect
    hits = found.recall * total
    low, high = lowest_share(hits, total, ALPHA), highest_share(hits, total, ALPHA)
    text = f"{low:.4f} (point {found.recall:.4f} of {found.support})"
    shown, missed = low >= floor, high < floor
    if missed:
        text += f"; at most {high:.4f}"
    elif not shown:
        text += f"; not shown: {_messages_needed(found, floor)}"
    if not shown and unproven and not missed:
        text += "; allowed by label_unproven"
    spared = False
    if compared is not None and not shown and not missed:
        text += f"; given to {compared[0]} of them by the new adapter, {compared[1]} by the current"
        spared = _is_hopeless(found, floor) and compared[0] >= compared[1]
    return criterion(
        f"recall of {found.label} after review, lower end of its interval",
        _wanted(floor, first=first),
        text,
        shown or spared or ((unproven or first) and not missed),
        undecided=not missed and (found.recall > floor or not found.support),
    )


def _fewest(found: LabelFigures, floor: float) -> int | None:
    """Return how many messages, all right, would show a label's recall; None if none would."""
    return math.ceil(fewest_rows(floor) * found.effect) if 0 < floor < 1 else None


def _is_hopeless(found: LabelFigures, floor: float) -> bool:
    """Return whether one mistake among a label's messages already hides its recall."""
    total = found.support / found.effect
    return lowest_share(max(0.0, total - 1), total, ALPHA) < floor if total else True


def _messages_needed(found: LabelFigures, floor: float) -> str:
    """Return how many messages would show a label's recall, if further ones are like these."""
    effect = found.effect
    fewest = _fewest(found, floor)
    if fewest is None or (found.support and found.recall <= floor):
        return "the share found is below the floor"
    if found.support < fewest:
        return (
            f"{found.support} messages of it were held out, and at least {fewest:,} are needed, "
            f"all of them right: {_how_to_hold_out(fewest - found.support)}"
        )
    for total in range(found.support, _MOST_MESSAGES * found.support):
        hits = found.recall * total
        if lowest_share(hits / effect, total / effect, ALPHA) >= floor:
            return (
                f"{found.support} messages of it were held out, and about {total:,} are needed, "
                f"with this share: {_how_to_hold_out(total - found.support)}"
            )
    return f"more than {_MOST_MESSAGES} times as many are needed"


USUAL_HOLDOUT = 0.15
"""The default of ``prepare --holdout-share``: an evaluation does not know its dataset's."""


def _how_to_hold_out(more: int) -> str:
    return f"label about {math.ceil(more / USUAL_HOLDOUT):,} more of it, or hold out more"


def judge_promise(figures: EvaluationRecord) -> Criterion:
    """Return the row of the precision that the adapter promises for labels without review."""
    if figures.promise is None:
        return criterion(PROMISE, "as promised", "the adapter promises none", passed=True)
    if taught := figures.dataset.validation_sources.get("teacher", 0):
        text = (
            f"{taught:,} of the labels that chose its threshold are by a teacher: this promises "
            "agreement with it, not precision: have reviewers decide on a random sample (tasks "
            "--for audit), prepare and train again"
        )
        return criterion(PROMISE, "shown by reviewers' labels or the export's", text, passed=False)
    return judge_kept_promise(figures.promise)


def judge_kept_promise(found: KeptPromise) -> Criterion:
    """Return the row of a promised precision.

    Validation must show it at the adapter's threshold (p < 6 %), and the hold-out must not refute
    it (one-sided, 20 %). A promise that is just broken passes both in at most 0.06 * 0.8 of all
    cases. A threshold chosen by the point value is only tested by the hold-out, at 5 %, since it
    keeps its promise half of the time by construction.
    """
    # 6 % and not the 5 % of the choice: when validation is scored again, a row next to the
    # threshold may fall on its other side. The hold-out's 20 % fails few honest thresholds, because
    # one that was chosen by its lower bound lies well above the promise.
    by_point = found.by == "point"
    against = ALPHA if by_point else _AGAINST
    wanted = f"at least {found.precision:.4f}, not refuted by the hold-out (p < {against:g})"
    if not by_point:
        wanted += f", shown by validation (p < {_SHOWN:g})"
    text = "; ".join(
        (_accepted(found.validation, "validation"), _accepted(found.holdout, "hold-out"))
    )
    unreviewed = found.validation.messages or found.holdout.messages
    shown = by_point or not unreviewed or found.validation.p < _SHOWN
    refuted = found.holdout.messages > 0 and found.holdout.p < against
    if not shown and not found.validation.messages:
        text += "; its run folder has the predictions that show it: evaluate it there"
    elif not shown:
        text += "; its threshold is lower than validation supports: train again"
    elif refuted:
        text += "; train again with a higher review_precision or more validation messages"
    return criterion(PROMISE, wanted, text, shown and not refuted)


def _accepted(accepted: Accepted, where: str) -> str:
    if not accepted.messages:
        return f"{where}: all go to review"
    share = accepted.right / accepted.messages
    return f"{where}: {share:.4f} of {accepted.messages}, p = {accepted.p:.2g}"


CURRENT, ANCHOR = "the current adapter", "the first of its series"

_ANCHORED = 0.08
"""The level against the anchor: nothing is published by it alone, and the further away the anchor
is, the more an equal adapter differs from it. By simulation: of series of twenty successors that
are each 0.3 points worse, at most 5 % lose more than a margin."""

_BETTER = 0.02
"""A lucky anchor would block equal adapters for ever, so it is replaced on good evidence only."""


def judge_comparison(
    against: Comparison | str,
    rules: GateRules,
    whom: str,
    *,
    digest: str | None = None,
    allow_unpaired: bool = False,
) -> Iterator[Criterion]:
    """Yield the rows of the comparison with another adapter (``whom``) on the same messages.

    The new adapter must be shown to be worse by less than a margin (Tango's test, see
    ``non_inferiority_p``): in right answers, in those without review if both promise the same, and
    in wrong ones without review, at the volume that the other one files. Counts by its own
    threshold would measure the noise with which that was chosen. Against the current adapter each
    further try on one hold-out must show it at a stricter level (``alpha_of``), and one that is
    significantly less often right within the margin fails too (McNemar's test). If more are shown
    to be right without review, it is enough that no fewer answers are right.

    Without the anchor small steps add up. ``python -m tests.bench.successions`` simulates series
    for these margins and levels. ``against`` is the comparison, or the reason why it is impossible;
    ``digest`` is the new adapter's.
    """
    if isinstance(against, Comparison) and against.current_digest == digest:
        yield criterion(f"against {whom}", "the same messages", "this is it", passed=True)
        return
    if isinstance(against, str):
        allowed = "; allowed by --allow-unpaired" if allow_unpaired else ""
        text = f"impossible: {against}{allowed}"
        yield criterion(f"against {whom}", "the same messages", text, allow_unpaired)
        return
    pairs = _Pairs.of(against)
    unreviewed = pairs.unreviewed if against.same_promise else None
    yield _judge_margin(
        f"against {whom}",
        "right where the other is wrong",
        pairs.right,
        against,
        rules,
        files_more=bool(unreviewed and lowest_difference(unreviewed, _alpha_of(against)) > 0),
    )
    if unreviewed:
        yield _judge_margin(
            f"right without review, against {whom}",
            "where the other is wrong or reviewed",
            unreviewed,
            against,
            rules,
            "unreviewed_margin",
        )
    if pairs.unseen and against.current:
        yield _judge_margin(
            f"wrong without review, against {whom}",
            f"only by the one, if both file {against.current.filed}",
            pairs.unseen,
            against,
            rules,
            "unseen_margin",
        )


@dataclass(frozen=True, slots=True)
class _Pairs:
    """The counts of a comparison, for tests."""

    right: Discordance
    unreviewed: Discordance | None
    unseen: Discordance | None

    @classmethod
    def of(cls, found: Comparison) -> _Pairs:
        def counts(of: Pairs) -> Discordance:
            return Discordance(of.only_new, of.only_current, found.messages, of.design_effect)

        right = Pairs(
            only_new=found.only_new_right,
            only_current=found.only_current_right,
            design_effect=found.design_effect,
        )
        return cls(
            counts(right),
            counts(found.unreviewed) if found.unreviewed else None,
            counts(found.unseen) if found.unseen else None,
        )


def is_better(found: Comparison) -> bool:
    """Return whether the new adapter is shown to be better (Tango's test, one-sided at 2 %), in
    right answers or in those without review, and does worse in nothing that was counted."""
    pairs = _Pairs.of(found)
    right = [each for each in (pairs.right, pairs.unreviewed) if each]
    counted = [*right, *([pairs.unseen] if pairs.unseen else ())]
    return all(each.difference >= 0 for each in counted) and any(
        lowest_difference(each, _BETTER) > 0 for each in right
    )


def _judge_margin(
    name: str,
    text: str,
    found: Discordance,
    against: Comparison,
    rules: GateRules,
    rule: str = "non_inferiority_margin",
    *,
    files_more: bool = False,
) -> Criterion:
    margin: float = getattr(rules, rule)
    alpha = _alpha_of(against)
    p = non_inferiority_p(found, margin)
    worst = _signed(lowest_difference(found, alpha))
    new, other = found.a_only, found.b_only
    if rule == "unseen_margin":  # which counts the messages that are not wrong without review
        new, other = other, new
    text += (
        f": {new} new, {other} other, of {found.total}; {_signed(found.difference)}, at worst "
        f"{worst}; p = {p:.2g}"
    )
    wanted = f"shown to be less than {in_points(margin)} worse (p < {alpha:.2g})"
    is_worse = False
    if rule == "non_inferiority_margin" and against.turn is not None:
        wanted += f", not significantly worse (p < {ALPHA:g})"
        is_worse = found.difference < 0 and against.p_value < ALPHA
    if is_worse:
        text += f"; significantly worse (McNemar's p = {against.p_value:.2g})"
    # On few messages this is what can be shown of a second model that has learned from more.
    allowed = files_more and found.difference >= 0 and not is_worse
    if allowed and p >= alpha:
        text += "; not fewer are right, and more are shown to be right without review"
    elif p >= alpha and not is_worse and found.difference > -margin:
        text += f"; {_explain(found, margin, alpha, rule, against.turn or 1)}"
    undecided = not is_worse and found.difference > -margin
    passed = (p < alpha and not is_worse) or allowed
    return criterion(name, wanted, text, passed, undecided=undecided)


def _alpha_of(against: Comparison) -> float:
    return _ANCHORED if against.turn is None else alpha_of(against.turn)


def _explain(found: Discordance, margin: float, alpha: float, rule: str, turn: int) -> str:
    fits = smallest_margin(found.independent, found.share, alpha)
    text = (
        f"not enough messages: an equal adapter needs about {messages_for(found, margin, alpha):,}"
        f"; these suffice for a margin of {in_points(fits)} ({rule})"
    )
    if turn > 1:
        chance = power(found.independent, found.share, margin, alpha)
        text += (
            f"; number {turn} of those tried on this hold-out since the current one was published, "
            f"so an equal one passes in {chance:.0%}: new held-out messages begin a new count; "
            "choose between seeds and recipes on validation"
        )
    return text


def _judge_promised(against: Comparison | str, accepted: float | None) -> Iterator[Criterion]:
    """Yield a row if the new adapter promises another precision than the current one."""
    if isinstance(against, str) or against.same_promise:
        return
    assert against.new is not None
    assert against.current is not None
    new, current = against.new, against.current
    text = "; ".join(
        f"{whose} {each.promise:g}: files {each.filed} of {against.messages}, {each.wrong} of them "
        "wrong"
        for whose, each in (("new", new), ("current", current))
    )
    passed = accepted is not None and math.isclose(accepted, new.promise)
    text += "; accepted" if passed else f"; accept it with --accept-promise {new.promise:g}"
    yield criterion("promised precision", "as the current adapter's, or accepted", text, passed)


def judge_usefulness(answers: Sequence[Answer]) -> Criterion:
    """Return the row of the first adapter: it has to be right more often than the commonest label,
    given to every message, would be (McNemar's exact test, 5 %)."""
    commonest = Counter(each.label for each in answers).most_common(1)[0][0]
    found = count_discordant(
        np.array([each.predicted == each.label for each in answers], dtype=np.bool_),
        np.array([each.label == commonest for each in answers], dtype=np.bool_),
        as_groups([each.group for each in answers]),
    )
    p, better = mcnemar_exact(found), found.difference > 0
    text = (
        f"right where {commonest} would be wrong: {found.a_only}, the reverse: {found.b_only}, of "
        f"{found.total}; p = {p:.2g}"
    )
    shown = better and p < ALPHA
    if better and not shown:
        text += "; not enough messages"
    return criterion(
        "against the commonest label",
        f"better than no model (p < {ALPHA:g})",
        text,
        shown,
        undecided=better,
    )


def _signed(difference: float) -> str:
    return f"{100 * difference:+.1f} points"


def judge_label_sources(evaluation: EvaluationRecord) -> Criterion:
    """Return the row that requires a hold-out without a teacher's labels.

    A student repeats its teacher's mistakes, and a hold-out that the teacher labelled calls them
    right: the figure would be agreement, not accuracy.
    """
    sources = evaluation.dataset.holdout_sources
    taught = sources.get("teacher", 0)
    text = ", ".join(f"{name} {count:,}" for name, count in sources.items()) or "export"
    if taught:
        text = (
            f"{taught:,} of {evaluation.examples:,} by a teacher: this measures agreement with it, "
            "not accuracy: have reviewers decide on a random sample (tasks --for audit), and "
            "prepare again"
        )
    return criterion("hold-out's labels", "by reviewers or the export", text, not taught)


def judge_unseen(manifest: Manifest, evaluation: EvaluationRecord) -> Criterion:
    """Return the row that requires a hold-out which the adapter has not seen.

    It passes for the adapter's own dataset, whose splits ``prepare`` keeps apart, and for another
    one whose hold-out was proven to share no message, near-duplicate or id with the adapter's
    training and validation messages (``evaluate --trained-on``). For an imported model nothing can
    prove it; a reason that a person gave is required, and shown.
    """
    found, passed = _judge(manifest, evaluation)
    wanted = "the adapter's own dataset, or proven disjoint"
    said = said_unseen(manifest)
    if said:
        found += f"; imported, and unseen by what was said at the import: {said}"
    elif said is not None:
        found, passed = LEARNT_UNKNOWN, False
    return criterion("hold-out unseen", wanted, found, passed)


def _judge(manifest: Manifest, evaluation: EvaluationRecord) -> tuple[str, bool]:
    own, other = manifest.data.get("digest"), evaluation.dataset.digest
    if not own:
        return "the manifest does not name the dataset that the adapter was trained on", False
    if own == other:
        return f"its own dataset, {other[:12]}…", True
    which = f"another dataset ({other[:12]}…, trained on {str(own)[:12]}…)"
    proof = evaluation.disjoint
    if proof is None:
        fix = (
            "evaluate on its own dataset, or again with --trained-on and the folder of its "
            "training dataset"
        )
        return f"{which}, without proof that its hold-out was not learnt from: {fix}", False
    if problem := _problem(proof, str(own), evaluation):
        return f"{which}; the proof is about {problem}: evaluate again with --trained-on", False
    if proof.shared:
        text = (
            f"{which}: {proof.shared} of its {proof.holdout_messages} held-out messages are in the "
            f"training dataset ({proof.describe()}): evaluate on the adapter's own dataset"
        )
        return text, False
    text = (
        f"{which}, none of its {proof.holdout_messages} held-out messages near one of "
        f"{proof.seen_messages} seen (Jaccard {proof.similarity:g})"
    )
    return text, True


def _problem(proof: DisjointProof, own: str, evaluation: EvaluationRecord) -> str | None:
    """Return what the proof is about if it is not about this adapter and evaluation, else None."""
    dataset = evaluation.dataset
    if proof.trained_on != own:
        return "another training dataset"
    if (proof.evaluated_on, proof.holdout_sha256) != (dataset.digest, dataset.holdout_sha256):
        return "another hold-out"
    if proof.holdout_messages != evaluation.examples:
        return f"{proof.holdout_messages} messages, but {evaluation.examples} were evaluated"
    if proof.similarity > SIMILARITY:
        return f"copies nearer than {proof.similarity:g}, but {SIMILARITY:g} is required"
    return None


def compare_evidence(new: Evidence, current: Evidence, turn: int | None = 1) -> Comparison | str:
    """Compare two evaluations, or return the reason why they cannot be compared. ``turn`` is as in
    the comparison."""
    holdout, other = new.evaluation.dataset, current.evaluation.dataset
    if holdout.holdout_sha256 != other.holdout_sha256:
        return (
            f"it was evaluated on another hold-out ({other.holdout_sha256[:12]}… instead of "
            f"{holdout.holdout_sha256[:12]}…)"
        )
    of_id = {(each.id, each.label): each for each in current.answers}
    if {(each.id, each.label) for each in new.answers} != of_id.keys():
        return "the two predictions files do not contain the same messages"
    theirs = [of_id[each.id, each.label] for each in new.answers]
    found = compare_answered(
        Answered.of(new.evaluation, new.answers),
        Answered.of(current.evaluation, theirs),
        as_groups([answer.group for answer in new.answers]),
        current_digest=current.evaluation.adapter.digest,
        holdout_sha256=holdout.holdout_sha256,
        turn=turn,
    )
    given = [
        Counter(each.predicted for each in some if each.predicted == each.label)
        for some in (new.answers, theirs)
    ]
    names = {each.label for each in new.answers if each.label}
    labels = {name: (given[0][name], given[1][name]) for name in sorted(names)}
    return found.model_copy(update={"labels": labels})


@dataclass(frozen=True, slots=True)
class Answered:
    """An adapter's answers as arrays, each (messages,), and the precision that it promises (0.0:
    none)."""

    right: Bools
    filed: Bools
    confidence: Floats
    promise: float

    @classmethod
    def of(cls, evaluation: EvaluationRecord, answers: Sequence[Answer]) -> Answered:
        """Return the answers of an evaluation."""
        return cls(
            np.array([each.predicted == each.label for each in answers], dtype=np.bool_),
            np.array([not each.review for each in answers], dtype=np.bool_),
            np.array([each.confidence for each in answers], dtype=np.float64),
            evaluation.promise.precision if evaluation.promise else 0.0,
        )

    @property
    def filing(self) -> Filing:
        """What it does without review."""
        wrong = int((self.filed & ~self.right).sum())
        return Filing(filed=int(self.filed.sum()), wrong=wrong, promise=self.promise)


def compare_answered(
    new: Answered,
    other: Answered,
    groups: Groups | None,
    *,
    current_digest: str = "",
    holdout_sha256: str = "",
    turn: int | None = None,
) -> Comparison:
    """Compare the answers of two adapters to the same messages in the same order."""

    def count(a: Bools, b: Bools) -> Pairs:
        found = count_discordant(a, b, groups)
        return Pairs(only_new=found.a_only, only_current=found.b_only, design_effect=found.effect)

    right, volume = count_discordant(new.right, other.right, groups), other.filing.filed
    at_volume = (not_wrong_unseen(each.confidence, each.right, volume) for each in (new, other))
    return Comparison(
        current_digest=current_digest,
        holdout_sha256=holdout_sha256,
        messages=right.total,
        only_new_right=right.a_only,
        only_current_right=right.b_only,
        design_effect=right.effect,
        p_value=mcnemar_exact(right),
        # If both file all, these are the right answers. If the other one files none, there is
        # nothing to rank.
        unreviewed=None
        if new.filed.all() and other.filed.all()
        else count(new.right & new.filed, other.right & other.filed),
        unseen=count(*at_volume) if 0 < volume < right.total else None,
        new=new.filing,
        current=other.filing,
        turn=turn,
    )
