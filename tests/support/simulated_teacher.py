"""An OpenAI-compatible endpoint on loopback that answers as a model does, and keeps accounts.

Nine of ten answers are right. Mistakes are like a real model's: a message is easy or hard, a hard
one is mostly taken for the same other label, and sometimes the order of the labels decides.
Which messages are hard is drawn by chance, or given (``find_hard``).
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

HARD = 0.14


def answer_like_a_model(
    truth: Mapping[str, str], labels: Sequence[str], hard: Mapping[str, str] | None = None
) -> Callable[..., str]:
    """A function of a text and the labels in their order. ``truth`` maps texts to labels, ``hard``
    the hard ones to what they are taken for."""
    next_of = dict(zip(labels, [*labels[1:], labels[0]], strict=True))
    if hard is None:
        hard = {
            text: next_of[right]
            for text, right in truth.items()
            if random.Random(text).random() < HARD
        }

    def answer(text: str, order: Sequence[str]) -> str:
        right = truth[text]
        draw = random.Random(f"{text} {order[0]}").random()
        wrong = hard.get(text, next_of[right])
        return wrong if draw < (0.65 if text in hard else 0.015) else right

    return answer


def find_hard(truth: Mapping[str, str], labels: Sequence[str], seed: int = 0) -> dict[str, str]:
    """Draw hard texts, and say what each is taken for: the likelier a classifier that did not learn
    a text finds another label, the likelier it is a hard one. So mistakes are confusions of labels
    that are alike, and a student makes some of the same."""
    from trainer.check.suspects import assign_folds, cross_val_predict, text_features

    texts = list(truth)
    own = np.array([labels.index(truth[text]) for text in texts], dtype=np.int64)
    folds = assign_folds(own, np.arange(len(own)), seed)
    found = cross_val_predict(text_features(texts), own, folds, len(labels))
    right = found[np.arange(len(own)), own].copy()
    found[np.arange(len(own)), own] = -1
    chance = np.random.default_rng(seed).gumbel(size=len(own))
    order = np.argsort(-(np.log((1 - right) / np.maximum(right, 1e-9)) + chance))
    return {texts[at]: labels[found[at].argmax()] for at in order[: round(HARD * len(texts))]}


@dataclass
class Faults:
    """Shares of requests that go wrong, and ``first``: the kinds of the first ones, in order."""

    limited: float = 0.0
    broken: float = 0.0
    dropped_before: float = 0.0
    dropped_after: float = 0.0
    malformed: float = 0.0
    duplicate: float = 0.0
    invented: float = 0.0
    larger: float = 0.0
    slow: float = 0.0
    first: list[str] = field(default_factory=list)

    def draw(self, number: int, seed: int) -> str:
        if number < len(self.first):
            return self.first[number]
        at = random.Random(f"{seed} {number}").random()
        for name, share in vars(self).items():
            if name != "first":
                at -= share
                if at < 0:
                    return name
        return "none"


ALL_FAULTS = Faults(
    limited=0.05, broken=0.03, dropped_before=0.02, dropped_after=0.02, malformed=0.02,
    duplicate=0.02, invented=0.02, larger=0.02, slow=0.05, first=["larger"],
)  # fmt: skip


@dataclass
class SimulatedTeacher:
    """The endpoint's state. ``name`` answers about a topic, as it was asked; ``billed`` is what it
    served, in picodollars, whether or not the answer arrived; ``open`` and ``most_open`` count
    requests at a time."""

    answer: Callable[..., str]
    input_price: int
    output_price: int
    name: Callable[[dict[str, Any]], str] | None = None
    faults: Faults = field(default_factory=Faults)
    seed: int = 0
    latency_s: float = 0.0
    accepts: Callable[[dict[str, Any]], tuple[int, str] | None] = lambda _body: None
    larger: int = 6
    finish: str = "stop"
    retry_after: tuple[str, str] = ("retry-after-ms", "30")
    url: str = ""
    billed: int = 0
    open: int = 0
    most_open: int = 0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    outcomes: Counter[str] = field(default_factory=Counter)
    limited_at: list[float] = field(default_factory=list)
    arrived_at: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def served(self) -> int:
        return len(self.bodies)

    @contextmanager
    def running(self) -> Iterator[SimulatedTeacher]:
        teacher = self

        class Handler(_Handler):
            state = teacher

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def take(self, body: dict[str, Any]) -> str:
        """Note a request and return what goes wrong with it."""
        with self.lock:
            number = len(self.bodies)
            self.bodies.append(body)
            self.arrived_at.append(time.monotonic())
            self.open += 1
            self.most_open = max(self.most_open, self.open)
            fault = self.faults.draw(number, self.seed)
            self.outcomes[fault] += 1
            if fault == "limited":
                self.limited_at.append(time.monotonic())
            return fault

    def bill(self, usage: dict[str, int]) -> None:
        with self.lock:
            self.billed += self.input_price * usage["prompt_tokens"]
            self.billed += self.output_price * usage["completion_tokens"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: SimulatedTeacher

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        state = self.state
        state.keys.add(self.headers.get("authorization", ""))
        fault = state.take(body)
        try:
            self._serve(state, body, fault)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the command was killed
        finally:
            with state.lock:
                state.open -= 1

    def _serve(self, state: SimulatedTeacher, body: dict[str, Any], fault: str) -> None:
        if (refusal := state.accepts(body)) is not None:
            status, text = refusal
            self._send(status, json.dumps({"error": {"message": text, "code": "bad_request"}}))
            return
        if fault == "limited":
            name, value = state.retry_after
            text = json.dumps({"error": {"message": "slow down", "code": "rate_limit_exceeded"}})
            self._send(429, text, {name: value})
            return
        if fault == "dropped_before":
            self._drop()
            return
        # From here on the model works, and that is billed.
        time.sleep(state.latency_s * (8 if fault == "slow" else 1))
        asked = json.loads(body["messages"][1]["content"])
        label = "" if state.name else _label_of(state, body, asked["message"])
        sent = sum(len(each["content"].encode()) for each in body["messages"])
        usage = {"prompt_tokens": sent // 4 + 40, "completion_tokens": 9}
        if fault == "larger":
            usage = {name: count * state.larger for name, count in usage.items()}
        state.bill(usage)
        if fault == "broken":
            self._send(500, json.dumps({"error": {"message": f"failed on {asked}"}}))
        elif fault == "dropped_after":
            self._drop()
        elif fault == "malformed":
            self._send(200, '{"choices": [{"message": {"content": "')
        else:
            content = {
                "duplicate": json.dumps({"label": label}) * 2,
                "invented": json.dumps({"label": f"{label}_and_more"}),
            }.get(fault, state.name(asked) if state.name else json.dumps({"label": label}))
            self._send(200, json.dumps(_completion(content, usage, state.finish)))

    def _send(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        data = text.encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _drop(self) -> None:
        self.close_connection = True
        self.connection.close()


def _label_of(state: SimulatedTeacher, body: dict[str, Any], message: str) -> str:
    order = [line.split(":")[0] for line in _label_lines(body["messages"][0]["content"])]
    return state.answer(message, order)


def _label_lines(system: str) -> list[str]:
    return system.split("Labels:\n")[1].split("\nnone: ", maxsplit=1)[0].split("\n")


def _completion(content: str, usage: dict[str, int], finish: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "simulated-1",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": usage | {"total_tokens": sum(usage.values())},
    }
