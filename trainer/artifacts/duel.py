"""duel.json and cost.json: the alternatives to an adapter, and what each costs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from trainer.artifacts.evaluation import DisjointProof, EvaluatedDataset
from trainer.artifacts.files import Record, RecordFile
from trainer.artifacts.training import AdapterName, Interval
from worker.contract.manifest import Kind

DUEL_FOLDER = "duel"
"""Where ``clerk-trainer duel`` writes, next to the adapter."""

BASELINES_FOLDER = "baselines"
"""The folder of runs made from a duel's baselines, to be published."""

ANSWERS_NAME = "duel_predictions.csv"
"""Every candidate's answer to every message, with a column for each candidate."""

CONTENDER_NAME = "contender.csv"
"""The answers of the model that was asked, with seconds, cost, and tokens: ``--candidate`` reads
them."""

CandidateKind = Literal["adapter", "baseline", "rival", "base", "recorded"]
"""The adapter; a cheap model that needs no GPU; another adapter of a language model; the base
without the adapter, prompted; answers that another model gave elsewhere."""


Conclusion = Literal["better", "not_worse", "adapter", "undecided"]
"""Another candidate is better; a baseline is within the margin; the adapter beats the baseline;
there are too few messages to decide, and the adapter is kept."""


class MadeAdapter(AdapterName):
    """An adapter and its path."""

    path: str


class Elsewhere(Record):
    """What answers that another model gave elsewhere took; None: not known for every answer.

    ``no_label`` counts messages for which it said that no label fits, or gave no answer. Seconds
    are percentiles over messages, tokens means over them as the model's server counted.
    ``constrained`` says how its answers were kept to the labels.
    """

    no_label: int
    seconds_p50: float | None = None
    seconds_p99: float | None = None
    prompt_tokens: float | None = None
    answer_tokens: float | None = None
    constrained: str | None = None


class CandidateFigures(Record):
    """One candidate on the hold-out; None: not measured or not known.

    ``outside_labels`` counts invented labels; for the adapter and the base, which are constrained
    to the label set, answers outside it that they would give without the constraint.
    ``hyperparameters``
    were chosen on validation, with ``validation_accuracy``. ``served_as`` is the kind of model as
    which a worker can serve it, ``not_served`` the reason why none can; ``adapter`` is its adapter,
    if it was made.
    """

    name: str
    kind: CandidateKind
    accuracy: float
    accuracy_interval_95: Interval
    macro_f1: float
    train_seconds: float | None
    messages_per_s: float | None
    outside_labels: int | None
    hyperparameters: dict[str, float] | None = None
    validation_accuracy: float | None = None
    cost_per_message: float | None = None
    served_as: Kind | None = None
    not_served: str | None = None
    adapter: MadeAdapter | None = None
    elsewhere: Elsewhere | None = None


class Pair(Record):
    """Candidate ``a`` against ``b`` on the same messages: ``difference`` is a's accuracy less
    b's with Tango's 95 % interval, ``a_only`` counts messages that only a gets right.

    ``non_inferiority_p`` is the p-value of "b is worse than a by the margin or more";
    ``worst_difference`` bounds how much worse b may be (one-sided 95 %).
    """

    a: str
    b: str
    difference: float
    interval_95: Interval
    mcnemar_p: float
    p_holm: float
    a_only: int
    b_only: int
    minimum_detectable_difference: float
    non_inferiority_p: float
    worst_difference: float


class Replacement(Record):
    """Whether the adapter can replace ``candidate``, a model that runs elsewhere.

    ``not_worse_p`` is the p-value of "the adapter is worse than it by the margin or more",
    corrected for the number of such candidates (Holm); ``worst_difference`` bounds how much worse
    the adapter may be (one-sided 95 %).
    """

    candidate: str
    conclusion: Literal["better", "not_worse", "worse", "undecided"]
    not_worse_p: float
    worst_difference: float
    reason: str


class LearningCurvePoint(Record):
    """A baseline trained on at most ``per_label`` examples of each label."""

    candidate: str
    per_label: int
    examples: int
    validation_accuracy: float


class DuelRecord(Record):
    """``duel.json``. ``recommendation`` is a candidate's name, ``verdict`` the reason, ``rules``
    the rules applied.

    ``tested_baseline`` was chosen on validation and tested for being within ``margin`` (a share)
    of the adapter. With ``required_messages``, an equal one passes four times in five;
    ``minimum_detectable_difference`` is the smallest difference that the hold-out detects as often.
    If no worker can serve the recommendation, ``servable`` is the best candidate that can be
    served, by the same rules. ``disjoint`` proves that another dataset's hold-out is unseen.
    ``replacements`` has an entry for each model that runs elsewhere.
    """

    schema_id: Literal["duel/2"] = Field("duel/2", alias="schema")
    created_at: str
    adapter: AdapterName
    dataset: EvaluatedDataset
    labels: tuple[str, ...]
    examples: int
    candidates: tuple[CandidateFigures, ...]
    pairs: tuple[Pair, ...]
    minimum_detectable_difference: float
    verdict: str
    recommendation: str
    rules: str
    learning_curve: tuple[LearningCurvePoint, ...]
    margin: float
    conclusion: Conclusion
    tested_baseline: str
    required_messages: int
    servable: str | None = None
    disjoint: DisjointProof | None = None
    replacements: tuple[Replacement, ...] = ()


DUEL = RecordFile("duel.json", DuelRecord, "clerk-trainer duel")


class CostInput(Record):
    """One input; ``source`` is a flag, the file, or a measurement."""

    name: str
    value: Any
    unit: str
    source: str


class Volume(Record):
    """The monthly costs of serving one volume; ``break_even_days`` is None if it never breaks
    even."""

    messages_per_month: float
    replicas: int
    serving: float
    serving_per_thousand: float
    hosted: float
    saving: float
    break_even_days: float | None


class KindCost(Record):
    """A way to serve, at a utilisation: what a million messages cost on a full replica, and from
    which monthly volume one replica costs no more than the hosted model (None: it never does).
    Ranges: the end that favours the adapter first."""

    model: str
    utilisation: float
    price_per_hour: tuple[float, float]
    messages_per_s: tuple[float, float]
    per_million: tuple[float, float]
    pays_from: tuple[float | None, float | None]


class PriceUsed(Record):
    """A machine's price, read at ``source`` on ``date``, ``age_days`` ago."""

    name: str
    per_hour: float
    currency: str
    source: str
    date: str
    age_days: int
    stale: bool


class CostFigures(Record):
    """What the inputs come to. If a figure is None, the field with ``_reason`` says why.

    ``one_off`` is training and labelling, ``per_thousand_messages`` at the planned utilisation,
    ``planned`` at the planned volume; after the break-even messages and days the savings have paid
    for training and labelling. ``pays_from_messages_per_month`` is the volume from which serving on
    the given replicas costs no more than the hosted model; each further replica raises the bill by
    a step.
    """

    training: float
    labelling: float
    one_off: float
    per_thousand_messages: float
    hosted_per_thousand: float
    planned: Volume
    break_even_messages: float | None
    break_even_days: float | None
    break_even_reason: str | None
    pays_from_messages_per_month: float | None
    pays_from_reason: str | None


class CostRecord(CostFigures):
    """``cost.json``, in ``currency``. Each range is that of the figure before ``_range`` over the
    ranges of the inputs: the end that favours the adapter first, but for the hosted price."""

    schema_id: Literal["cost/1"] = Field("cost/1", alias="schema")
    created_at: str
    currency: str
    inputs: tuple[CostInput, ...]
    by_volume: tuple[Volume, ...]
    break_even_days_range: tuple[float | None, float | None]
    pays_from_range: tuple[float | None, float | None]
    hosted_per_thousand_range: tuple[float, float]
    by_kind: tuple[KindCost, ...]
    prices: tuple[PriceUsed, ...] = ()


COST = RecordFile("cost.json", CostRecord, "clerk-trainer cost")
