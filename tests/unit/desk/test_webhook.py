"""Records reach a web address in order, at least once, whatever it answers or is killed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator

import pytest

from desk.errors import SettingsError, TryAgain
from desk.outbox import GIVE_UP_MS, OutboxPublisher, WebhookSender, headers, make_post, read_key
from desk.service import queues, reviewing
from desk.stream.fake import FakeCorrections
from tests.support.desk_world import DeskWorld
from tests.support.webhook_receiver import Receiver, receiver
from worker.contract.records import Correction, read_correction

pytestmark = pytest.mark.slow

KEY = b"0123456789abcdef"


@pytest.fixture
def away() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


def sender(world: DeskWorld, to: Receiver, timeout_s: float = 5.0) -> WebhookSender:
    post = make_post(to.url, timeout_s=timeout_s)
    return WebhookSender(world.database, post, world.clock, name="desk", key=KEY)


def publish(world: DeskWorld, *labels: str) -> None:
    """Decide a message for each label, and publish the records."""
    ann = world.person("ann")
    for label in labels:
        world.add("Wo ist mein Paket?")
        world.decide(ann, label)
    publisher = OutboxPublisher(world.database, FakeCorrections([]), world.clock)
    while publisher.run_once():
        pass


def test_a_decision_arrives_signed_and_without_the_message(
    world: DeskWorld, away: Receiver
) -> None:
    """The record, an id, a time, and a signature that a receiver can check; no text, and nothing
    from before there was an address. A retraction has its own type."""
    publish(world, "payment")
    sending = sender(world, away)
    assert sending.run_once() == 0
    publish(world, "refund")
    assert sending.run_once() == 1
    ((sent, body),) = away.seen
    record = json.loads(body)
    assert record["type"] == "decision.published"
    correction = read_correction(json.dumps(record["data"]))
    assert isinstance(correction, Correction)
    assert correction.label == "refund"
    assert b"Paket" not in body
    signed = f"{sent['Webhook-Id']}.{sent['Webhook-Timestamp']}.".encode() + body
    wanted = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert sent["Webhook-Signature"] == f"v1,{wanted}"
    assert int(sent["Webhook-Timestamp"]) == world.clock() // 1000
    assert sending.run_once() == 0
    reviewing.undo(world.desk, world.person("ann"))
    publish(world)
    assert sending.run_once() == 1
    retracted = json.loads(away.seen[-1][1])
    assert (retracted["type"], retracted["data"]["id"]) == ("decision.retracted", correction.id)


@pytest.mark.parametrize("fault", [500, 400, "reset", "redirect", "slow"])
def test_whatever_is_no_success_is_sent_again_with_its_id(
    world: DeskWorld, away: Receiver, fault: int | str
) -> None:
    """Later records wait for it, while Kafka's outbox goes on. Where the answer was lost, another
    process sends the record a second time, so none is left out."""
    sending = sender(world, away, timeout_s=0.5)
    sending.run_once()
    publish(world, "refund", "payment")
    away.answers.extend([fault, fault])
    for _ in range(2):
        with pytest.raises(TryAgain):
            sending.run_once()
    publish(world, "other")
    assert queues.overview(world.desk).unpublished == 0
    assert queues.overview(world.desk).undelivered == 3
    if fault == "slow":  # it took them, and the sender does not know
        until = time.monotonic() + 10
        while len(away.labels()) < 2 and time.monotonic() < until:
            time.sleep(0.05)
    before = len(away.labels())
    assert sender(world, away).run_once() == 3
    assert away.labels()[before:] == ["refund", "payment", "other"]
    ids = [sent["Webhook-Id"] for sent, _ in away.seen]
    assert len(ids) == 5
    assert len(set(ids[:3])) == 1
    assert len(set(ids)) == 3
    assert queues.overview(world.desk).undelivered == 0


def test_what_is_refused_for_too_long_is_given_up(world: DeskWorld, away: Receiver) -> None:
    """The next record is sent. An address that no longer exists does not hold records for ever."""
    sending = sender(world, away)
    sending.run_once()
    publish(world, "refund", "payment")
    away.answers.append(410)
    with pytest.raises(TryAgain):
        sending.run_once()
    world.clock.move(GIVE_UP_MS / 1000)
    away.answers.append(410)
    assert sending.run_once() == 2
    assert away.labels() == ["payment"]


@pytest.mark.parametrize("secret", ["", "short", "whsec_c2hvcnQ="])
def test_a_secret_that_could_be_guessed_is_refused(secret: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_key(secret)
    assert not secret or secret not in str(caught.value)


def test_the_signature_is_that_of_the_standard() -> None:
    """The example of the specification (standard-webhooks, "Signature scheme")."""
    key = read_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    found = headers(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert found["Webhook-Signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("url", ["ftp://example.com", "https://", "https://a:b@example.com/"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match=r"webhook\.url"):
        make_post(url)
