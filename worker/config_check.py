"""Check whether a worker could start with its settings, without an engine.

All problems are collected before they are reported, so that one run shows them all.
``clerk-worker check-config`` prints them, and a worker with problems refuses to start.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from worker.common.signatures import BadKey, read_public_key
from worker.contract import AdapterRefused, Manifest, read_manifest, verify_tokens
from worker.contract.manifest import TOKENIZER_NAME, stage_directory
from worker.contract.store import find_adapter
from worker.contract.verify import verify_files
from worker.core.arms import MAIN
from worker.engine.arguments import check_own_arguments
from worker.engine.model_files import Bases
from worker.engine.onnx_engine import OnnxLoader
from worker.engine.open import KindLoader, require_vllm
from worker.errors import SettingsError
from worker.policies import (
    kafka_config,
    kafka_security,
    loop_policy,
    max_iteration_s,
    shadow_topic,
    worker_topics,
)
from worker.serving import arm_sources, require_adapter
from worker.settings import KafkaSettings, ModelSettings, Settings
from worker.stream.kafka_config import check_bounds, check_promises
from worker.stream.kafka_reach import broker_note, check_clients

Problem = SettingsError | AdapterRefused

BROKEN_RELEASES = (
    "kafka.delivery is exactly_once: brokers of Apache Kafka 4.3.0, 4.3.1 and 4.4.0 break that "
    "(KAFKA-20734; docs/operations.md, Transactions that Kafka forgets). A broker does not report "
    "its release, so check which one you run"
)


def settings_problems(settings: Settings) -> list[SettingsError]:
    """Return every problem with the settings and with the files that they name. The Kafka client
    validates its properties, in milliseconds and without connecting."""
    kafka = settings.kafka
    found = [
        *_problems_of(worker_topics(kafka, shadow_topic(settings)).check),
        *_problems_of(lambda: check_promises(_places(kafka), kafka.delivery)),
        *_problems_of(lambda: kafka_security(kafka)),
        *_unreadable(kafka),
        *_shared_names(kafka),
    ]
    if not found:  # the client's errors are less clear than those above
        found += _problems_of(lambda: _check_kafka(settings))
    if settings.tracing.enabled:
        found += _problems_of(_require_tracing)
    if settings.adapters.require_signature:
        found += _problems_of(lambda: _check_keys(settings.adapters.public_keys))
    return [SettingsError(problem) for problem in found]


def adapter_problems(settings: Settings, *, digests: bool = True) -> list[Problem]:
    """Return what prevents serving the adapter here: problems with its manifest, taxonomy, stages
    or base, or missing packages.

    ``digests``: verify the adapter's files and tokens too, which takes a second for a few hundred
    megabytes. The base's weights are compared only by size.
    """
    try:
        directory = find_adapter(require_adapter(settings)).directory
        manifest = verify_files(directory) if digests else read_manifest(directory)
    except (SettingsError, AdapterRefused) as error:
        return [error]
    problems: list[Problem] = []
    model = settings.model
    given = [*([] if model.base is None else [model.base]), *model.bases]
    # Hashing a base takes a second per gigabyte; a worker does it when it opens the adapter.
    bases = Bases(given, verify_weights=False)
    for where in _served(directory, manifest):
        try:
            own = read_manifest(where)
        except AdapterRefused as error:
            problems.append(error)
            continue
        # Default arguments bind the loop's variables; every check runs, so that all problems show.
        for check in (
            lambda own=own: _require_engine(own, model),
            lambda where=where, own=own: OnnxLoader(model.encoder_precision).check(where, own),
            lambda where=where, own=own: _check_base(bases, where, own, tokens=digests),
        ):
            try:
                check()
            except (SettingsError, AdapterRefused) as error:
                problems.append(error)
    return _distinct(problems)


def refuse(problems: list[Problem]) -> None:
    """Raise AdapterRefused if only the adapter is wrong, otherwise SettingsError with all
    problems."""
    if problems and all(isinstance(problem, AdapterRefused) for problem in problems):
        raise problems[0]
    if problems:
        raise SettingsError(*map(str, problems))


def notes(settings: Settings, origins: Mapping[str, str]) -> list[str]:
    """Return warnings for the operator; a worker starts in spite of them. ``origins``: see
    ``Loaded``."""
    kafka = settings.kafka
    found = []
    origin = origins.get("kafka.instance_id", "")
    if kafka.instance_id is not None and origin.startswith("file "):
        found.append(
            f"kafka.instance_id comes from {origin}: workers that share the file share the name, "
            "and Kafka fences all but the latest: set CLERK_KAFKA__INSTANCE_ID for each"
        )
    if kafka.instance_id is None and (name := _group_instance(kafka)) is not None:
        found.append(
            f"{name[0]} names one member of the group: do not start another worker with it"
        )
    if kafka.delivery == "exactly_once":
        found.append(BROKEN_RELEASES)
    return [*found, *_idle_arms(settings)]


def kafka_note(settings: Settings) -> str | None:
    """Return why Kafka does not answer here, within 3 s; None if it does. A note and not a problem:
    the settings may be checked where the brokers cannot be reached."""
    return broker_note(kafka_config(settings.kafka, shadow_topic(settings)))


def _problems_of(check: Callable[[], object]) -> Sequence[str]:
    try:
        check()
    except SettingsError as error:
        return error.problems
    return ()


def _places(kafka: KafkaSettings) -> dict[str, Mapping[str, str | int | float | bool]]:
    return {
        "kafka.client": kafka.client,
        "kafka.consumer": kafka.consumer,
        "kafka.producer": kafka.producer,
    }


def _check_kafka(settings: Settings) -> None:
    config = kafka_config(settings.kafka, shadow_topic(settings))
    check_bounds(config, max_iteration_s(config, loop_policy(settings)))
    # Here, before the model is loaded: what the library refuses was a traceback minutes later.
    check_clients(config)


def _unreadable(kafka: KafkaSettings) -> Iterator[str]:
    """Yield a problem for each file of the Kafka client that cannot be read."""
    named: dict[str, object] = {
        f"kafka.{name}": getattr(kafka, name)
        for name in ("ssl_ca_location", "ssl_certificate_location", "ssl_key_location")
    }
    for place, given in _places(kafka).items():
        named |= {
            f"{place}.{name}": value
            for name, value in given.items()
            if name.endswith((".location", ".file", ".keytab"))
        }
    for name, value in named.items():
        # With "probe" librdkafka looks for certificate authorities itself.
        if isinstance(value, str) and value != "probe" and (why := _why_unreadable(Path(value))):
            yield f"{name}: {value} cannot be read: {why}"


def _why_unreadable(path: Path) -> str | None:
    try:
        if path.is_dir():  # of certificate authorities, by their hashes
            next(path.iterdir(), None)
        else:
            with path.open("rb"):
                pass
    except OSError as error:
        return error.strerror
    return None


def _shared_names(kafka: KafkaSettings) -> Iterator[str]:
    """Yield a problem if all workers would have the same member name although each has its own
    instance_id (a pod's name)."""
    own = kafka.instance_id
    if own is None:
        return
    member = _group_instance(kafka)
    if member is not None and member[1] != own:
        yield (
            f"{member[0]} is {member[1]!r} and kafka.instance_id {own!r}: workers with the same "
            "member name fence each other; remove it, or give both the same value"
        )


def _group_instance(kafka: KafkaSettings) -> tuple[str, object] | None:
    for place in ("consumer", "client"):
        given = getattr(kafka, place)
        if "group.instance.id" in given:
            return f"kafka.{place}.group.instance.id", given["group.instance.id"]
    return None


def _require_tracing() -> None:
    import worker.observe.tracing  # noqa: F401 - raises SettingsError without OpenTelemetry


def _check_keys(paths: Sequence[Path]) -> None:
    if not paths:
        raise SettingsError(
            "adapters.require_signature is true and adapters.public_keys is empty: every adapter "
            "would be refused; name the public keys of those who may publish"
        )
    for path in paths:
        try:
            read_public_key(path)
        except BadKey as error:
            raise SettingsError(f"adapters.public_keys: {error}") from error


def _served(directory: Path, manifest: Manifest) -> list[Path]:
    return [stage_directory(directory, stage) for stage in manifest.stages] or [directory]


def _require_engine(manifest: Manifest, model: ModelSettings) -> None:
    if KindLoader.engine_of(manifest.kind) == "vllm":
        require_vllm()
        check_own_arguments(model.engine_args)
    elif missing := [
        name for name in ("onnxruntime", "tokenizers") if importlib.util.find_spec(name) is None
    ]:
        raise SettingsError(
            f"the adapter's kind, {manifest.kind!r}, needs {' and '.join(missing)}: "
            "in the checkout, pip install -e '.[encoder]'"
        )


def _check_base(bases: Bases, where: Path, manifest: Manifest, *, tokens: bool) -> None:
    if manifest.needs_base:
        bases.find(where, manifest)
    # A missing package is reported by _require_engine.
    if tokens and importlib.util.find_spec("tokenizers") is not None:
        verify_tokens(manifest, bases.encoders(where, manifest), where / TOKENIZER_NAME)


def _idle_arms(settings: Settings) -> Iterator[str]:
    """Yield a warning for a canary or shadow that could not serve; the worker labels without it."""
    sources = []
    with suppress(AdapterRefused):  # reported by adapter_problems
        sources = [source for source in arm_sources(settings) if source.role is not MAIN]
    for source in sources:
        try:
            target = source.read()
            if target is not None:
                verify_files(target.directory)
        except (AdapterRefused, OSError) as error:
            yield f"the {source.role.name} will not serve: {error}"


def _distinct(problems: list[Problem]) -> list[Problem]:
    """Drop duplicates: several stages of a cascade may lack the same package."""
    return list({str(problem): problem for problem in problems}.values())
