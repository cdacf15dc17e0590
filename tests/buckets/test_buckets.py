"""A store in a bucket: who publishes, races, breaks off and follows (S3, by versitygw)."""

from __future__ import annotations

import json
import shutil
import threading
import urllib.request
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest

from tests.buckets.conftest import Gateway
from tests.support.keys import write_key
from trainer.errors import BadInput
from trainer.store.moves import end_canary, promote_canary, read_history, roll_back
from trainer.store.publish import plan_publication, publish_adapter
from trainer.store.remote import open_store
from worker.common.bucket import Bucket, LostRace, StoreAway, called, copy_of, url_of
from worker.common.mirror import StoreMirror, local_path
from worker.contract import AdapterRefused, load_adapter, read_manifest, write_manifest
from worker.contract.store import Pointer, read_canary, read_pointer
from worker.demo.broker import LocalBroker
from worker.demo.client import Publisher, Watcher, create_demo_topics
from worker.demo.models import adapter_dir, demo_samples, ensure_model
from worker.demo.program import start_worker

RACES = 1000
TOPICS = ("bucket.in", "bucket.out", "bucket.review", "bucket.dead")

pytestmark = pytest.mark.timeout(300)


def adapter(folder: Path, name: str) -> Path:
    """The adapter that ships under another name, and so with another digest."""
    return _named(adapter_dir(), folder, name)


def _named(shipped: Path, folder: Path, name: str) -> Path:
    target = folder / name
    shutil.copytree(shipped, target)
    write_manifest(target, replace(read_manifest(shipped), name=name))
    return target


def publish(
    url: str, source: Path, canary: float | None = None, key: Path | None = None
) -> Pointer:
    plan = plan_publication(source, open_store(url), allow_unjudged=True)
    return publish_adapter(
        plan, force=True, reason="of the test", canary_share=canary, sign_key=key
    )


def pointed(url: str) -> str | None:
    pointer = read_pointer(open_store(url))
    return pointer.name if pointer else None


def test_a_store_is_published_to_moved_and_rolled_back(url: str, tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        publish(url, adapter(tmp_path, name))
    publish(url, adapter(tmp_path, "four"), canary=0.1)
    store = open_store(url)
    assert pointed(url) == "three"
    canary = read_canary(store)
    assert canary is not None
    assert canary.name == "four"
    promote_canary(store)
    assert pointed(url) == "four"
    assert read_canary(open_store(url)) is None  # its object is there, and empty
    roll_back(open_store(url), reason="of the test")
    roll_back(open_store(url), reason="of the test")
    assert pointed(url) == "two"
    publish(url, adapter(tmp_path, "five"), canary=0.1)
    end_canary(open_store(url), reason="of the test")
    assert read_canary(open_store(url)) is None
    events = [entry.event for entry in read_history(open_store(url))]
    assert events == ["force"] * 3 + [
        "canary",
        "promote",
        "rollback",
        "rollback",
        "canary",
        "end_canary",
    ]


def test_of_two_writers_exactly_one_wins(url: str) -> None:
    """Of a first pointer, and of each later one."""
    first, second = Bucket(url), Bucket(url)
    etag: str | None = None
    with ThreadPoolExecutor(2) as threads:
        for number in range(RACES):
            start = threading.Barrier(2)

            def write(
                bucket: Bucket,
                data: bytes,
                start: threading.Barrier = start,
                etag: str | None = etag,
            ) -> bool:
                start.wait()
                try:
                    bucket.put_if("current.json", data, etag)
                except LostRace:
                    return False
                return True

            ours, theirs = f"a {number}".encode(), f"b {number}".encode()
            won = [threads.submit(write, first, ours), threads.submit(write, second, theirs)]
            results = [each.result() for each in won]
            assert sorted(results) == [False, True]
            found = first.get("current.json")
            assert found is not None
            assert found.data == (ours if results[0] else theirs)
            etag = found.etag


def test_the_loser_is_told_who_won(url: str, tmp_path: Path) -> None:
    """Both planned on the same state; the second changes nothing."""
    publish(url, adapter(tmp_path, "one"))
    plans = [
        plan_publication(adapter(tmp_path, name), open_store(url), allow_unjudged=True)
        for name in ("two", "three")
    ]
    publish_adapter(plans[0], force=True, reason="of the test")
    with pytest.raises(
        BadInput, match=r"s3://adapters/store: .*force of two.* came first: try again"
    ):
        publish_adapter(plans[1], force=True, reason="of the test")
    assert pointed(url) == "two"
    assert [entry.name for entry in read_history(open_store(url))] == ["one", "two"]


def test_killed_at_any_step_it_leaves_the_old_or_the_new(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the same command completes it."""
    old, new = adapter(tmp_path, "old"), adapter(tmp_path, "new")
    writes = {name: getattr(Bucket, name) for name in ("put", "put_if")}
    left = 0

    def killed(name: str) -> Callable[..., None]:
        def call(*given: object) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            writes[name](*given)

        return call

    for step in range(100):
        at = f"{url}/{step}"
        publish(at, old)
        with monkeypatch.context() as patch:
            for name in writes:
                patch.setattr(Bucket, name, killed(name))
            left = step
            try:
                publish(at, new)
            except KeyboardInterrupt:
                assert pointed(at) == "old"
            else:
                break
        publish(at, new)
        assert pointed(at) == "new"
    assert step > 5


def test_a_missing_bucket_and_a_wrong_login_say_so(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadInput, match="s3://nowhere/store: "):
        open_store("s3://nowhere/store")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(BadInput, match=r"(?s)s3://adapters/store: .*SignatureDoesNotMatch"):
        open_store(url)


def test_a_copys_path_is_said_as_its_url() -> None:
    path = copy_of("s3://b/p/", Path("/cache/x"))
    assert url_of(path) == "s3://b/p"
    assert called(f"{path}/current.json: no; {path}") == "s3://b/p/current.json: no; s3://b/p"
    assert url_of(Path("/adapters")) is None


def _fetch(folder: Path) -> int:
    """Bring the store's current adapter; return how many fetches this process made."""
    mirror, made = StoreMirror(folder), 0
    fetch = mirror._fetch

    def counted(digest: str) -> bool:
        nonlocal made
        made += 1
        return fetch(digest)

    mirror._fetch = counted  # type: ignore[method-assign]
    assert mirror.refresh()
    return made


def test_workers_that_share_a_folder_fetch_once(url: str, tmp_path: Path) -> None:
    source = adapter(tmp_path, "shared")
    digest = publish(url, source).digest
    # Spawned, because the client's threads do not survive a fork.
    with ProcessPoolExecutor(8, get_context("spawn")) as workers:
        assert sum(workers.map(_fetch, [local_path(url)] * 8)) == 1
    assert load_adapter(local_path(url) / digest).digest == digest


def test_a_fetch_that_broke_off_goes_on(url: str, tmp_path: Path) -> None:
    """What is there is not fetched again, unless it is wrong."""
    digest = publish(url, adapter(tmp_path, "long")).digest
    folder = local_path(url)
    largest = max((adapter_dir()).iterdir(), key=lambda path: path.stat().st_size)
    for begun in (largest.read_bytes()[:1000], b"other bytes"):
        shutil.rmtree(folder, ignore_errors=True)
        part = folder / f".incoming.{digest}"
        part.mkdir(parents=True)
        (part / largest.name).write_bytes(begun)
        assert StoreMirror(folder).refresh()
        assert load_adapter(folder / digest).digest == digest


def test_a_damaged_adapter_is_fetched_again_when_its_pointer_moves(
    url: str, objects: Path, tmp_path: Path
) -> None:
    """Until then it is here as it is there, for its reader to refuse."""
    source = adapter(tmp_path, "one")
    digest = publish(url, source).digest
    there = objects / digest / "adapter_config.json"
    whole = there.read_bytes()
    there.write_bytes(b" " * len(whole))
    mirror = StoreMirror(local_path(url))
    assert mirror.refresh()
    with pytest.raises(AdapterRefused):
        load_adapter(local_path(url) / digest)
    there.write_bytes(whole)
    publish(url, adapter(tmp_path, "two"))
    roll_back(open_store(url), reason="of the test")
    assert mirror.refresh()
    assert load_adapter(local_path(url) / digest).digest == digest


def test_the_copy_is_bounded(url: str, tmp_path: Path) -> None:
    """The adapters named longest ago go; the current one and the one before it stay."""
    digests = []
    size = sum(path.stat().st_size for path in adapter_dir().iterdir())
    mirror = StoreMirror(local_path(url), limit_bytes=2.5 * size)
    for name in ("one", "two", "three", "four"):
        digests.append(publish(url, adapter(tmp_path, name)).digest)
        assert mirror.refresh()
    there = {path.name for path in local_path(url).iterdir() if path.is_dir()}
    assert there == set(digests[2:])


def test_a_start_without_the_bucket(url: str, tmp_path: Path, gateway: Gateway) -> None:
    """With a copy that is young enough at once; else it waits."""
    publish(url, adapter(tmp_path, "one"))
    StoreMirror(local_path(url)).begin(60)
    gateway.stop()
    StoreMirror(local_path(url)).begin(60)
    waits: list[float] = []

    def back(seconds: float) -> None:
        waits.append(seconds)
        gateway.start()

    mirror = StoreMirror(local_path(url))
    mirror.begin(-1, sleep=back)
    assert len(waits) == 1
    assert mirror.away_since is None


def test_a_worker_follows_a_bucket_through_everything(
    url: str,
    objects: Path,
    gateway: Gateway,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Callable[[Callable[[], object], float], None],
) -> None:
    """Publish, canary, promotion, rollback, adapters that are unsigned, signed by another and
    tampered with, and a bucket that goes away under load: each message has one label, by the
    adapter of the time."""
    monkeypatch.delenv("CLERK_CACHE")
    encoder = ensure_model("encoder").adapter
    monkeypatch.setenv("CLERK_CACHE", str(tmp_path / "cache"))
    names = ("one", "two", "bad", "three", "unsigned", "foreign")
    sources = {name: _named(encoder, tmp_path, name) for name in names}
    key, public, other = (tmp_path / f"{name}.pem" for name in ("key", "public", "other"))
    write_key(key, public)
    write_key(other)
    publish(url, sources["one"], key=key)
    with ExitStack() as stack:
        kafka = stack.enter_context(LocalBroker())
        create_demo_topics(kafka.bootstrap_servers, dict.fromkeys(TOPICS, 2))
        worker = stack.enter_context(
            start_worker(
                {
                    "kafka.bootstrap_servers": f"'{kafka.bootstrap_servers}'",
                    "kafka.group_id": "'bucket'",
                    "kafka.input_topics": f"'{TOPICS[0]}'",
                    "kafka.output_topic": f"'{TOPICS[1]}'",
                    "kafka.review_topic": f"'{TOPICS[2]}'",
                    "kafka.dead_letter_topic": f"'{TOPICS[3]}'",
                    "model.adapter": f"'{url}'",
                    "adapters.require_signature": "true",
                    "adapters.public_keys": f"['{public}']",
                    "log.format": "'json'",
                    "http.port": "0",
                },
                tmp_path / "worker.log",
            )
        )
        worker.wait_until_ready("partitions.assigned")
        publisher = Publisher(kafka.bootstrap_servers, TOPICS[0])
        kinds = dict(zip(TOPICS[1:], ("output", "review", "dead letter"), strict=True))
        watcher = Watcher(kafka.bootstrap_servers, kinds)
        stack.callback(watcher.close)
        texts = [sample.message for sample in demo_samples(100)]
        seen: list[tuple[str, str]] = []

        def serves(name: str) -> bool:
            number = len(seen)
            publisher.publish(f"m-{number}", texts[number % len(texts)])
            wait_until(lambda: poll() > number, 30)
            return seen[-1][1] == name

        def refused() -> list[str]:
            lines = map(json.loads, (tmp_path / "worker.log").read_text().splitlines())
            return [line["reason"] for line in lines if line["event"] == "adapter.refused"]

        def poll() -> int:
            for each in watcher.poll(0.1):
                assert each.value is not None
                seen.append((each.message_id, each.value["adapter"]["name"]))
            return len(seen)

        wait_until(lambda: serves("one"), 30)
        publish(url, sources["two"], canary=0.5, key=key)
        wait_until(lambda: serves("two"), 60)
        end_canary(open_store(url), reason="of the test")
        publish(url, sources["two"], key=key)
        wait_until(lambda: all(serves("two") for _ in range(5)), 60)
        roll_back(open_store(url), reason="of the test")
        wait_until(lambda: all(serves("one") for _ in range(5)), 60)

        store = open_store(url)
        plan = plan_publication(sources["bad"], store, allow_unjudged=True)
        place = objects / plan.manifest.digest
        place.mkdir()
        for path in sources["bad"].iterdir():  # of the right size, so that no upload corrects it
            shutil.copy(path, place)
        damaged = bytearray((place / "model.onnx").read_bytes())
        damaged[1000] ^= 1
        (place / "model.onnx").write_bytes(damaged)
        publish_adapter(plan, force=True, reason="of the test", sign_key=key)
        wait_until(lambda: refused() == ["files"], 120)
        assert serves("one")
        publish(url, sources["unsigned"])
        wait_until(lambda: refused() == ["files", "signature"], 60)
        publish(url, sources["foreign"], key=other)
        wait_until(lambda: refused() == ["files", "signature", "signature"], 60)
        assert serves("one")

        gateway.stop()
        wait_until(lambda: "store.away" in worker.events(), 120)
        assert all(serves("one") for _ in range(20))
        assert _away_s(str(worker.url)) > 0
        gateway.start()
        wait_until(lambda: "store.back" in worker.events(), 120)
        publish(url, sources["three"], key=key)
        wait_until(lambda: serves("three"), 60)
        assert _away_s(str(worker.url)) == 0
        assert worker.events().count("store.away") == 1
        assert sorted(seen) == sorted(set(seen))
        assert {message for message, _ in seen} == {f"m-{n}" for n in range(len(seen))}


def _away_s(base: str) -> float:
    with urllib.request.urlopen(f"{base}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(line for line in lines if line.startswith("clerk_store_away")).split()[-1])


def test_a_pointer_that_cannot_be_read_is_left_to_its_reader(url: str) -> None:
    Bucket(url).put("current.json", json.dumps(["?"]).encode())
    assert StoreMirror(local_path(url)).refresh()
    assert (local_path(url) / "current.json").exists()


def test_a_bucket_that_is_away_is_no_answer(url: str, gateway: Gateway) -> None:
    gateway.stop()
    with pytest.raises(StoreAway, match="s3://adapters/store: "):
        Bucket(url, patience_s=1).get("current.json")
