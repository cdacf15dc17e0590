"""A LoRA adapter that was trained elsewhere becomes one that workers serve, with the words that it
learnt as codes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.trainer_world import call
from trainer.dataset.folder import Dataset
from trainer.model.foreign_lora import read_learnt, read_lora
from trainer.model.lora_model import CONFIG, WEIGHTS, LoraModel
from trainer.model.prompt import load_tokenizer
from trainer.training.imported_lora import generate
from worker.contract import find_branches, load_adapter, verify_adapter

pytestmark = pytest.mark.slow

ANSWERS = {"order_tracking": "my parcel", "refund": "my money", "payment": "card"}
LABEL_MAP = "".join(f'"{words}" = "{label}"\n' for label, words in ANSWERS.items())
SYSTEM = "File the message."
EPOCHS = 20

Chats = list[dict[str, Any]]


@pytest.fixture(scope="module")
def chats(make_messages: Callable[[int, int], list[tuple[str, str]]]) -> Chats:
    """Training lines in OpenAI's form, which TRL, Axolotl and LLaMA-Factory read."""
    return [
        {
            "messages": [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": message},
                {"role": "assistant", "content": ANSWERS[label]},
            ]
        }
        for message, label in make_messages(30, 7)
    ]


def write_lines(path: Path, lines: Chats) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def adapter(
    chats: Chats,
    make_lora_model: Callable[..., LoraModel],
    tiny_base: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """PEFT's own files of an adapter that learnt the chats by plain cross-entropy of the answer."""
    folder = tmp_path_factory.mktemp("elsewhere") / "adapter"
    (folder.parent / "map.toml").write_text(LABEL_MAP, encoding="utf-8")
    model = make_lora_model(rank=16, alpha=32.0)
    lines = write_lines(folder.parent / "train.jsonl", chats)
    learnt = read_learnt(lines, folder, tiny_base)
    encode = load_tokenizer(tiny_base).encoders.control
    after = len(encode(learnt.suffix))
    answers = {name: encode(learnt.suffix + text)[after:] for name, text in learnt.answers.items()}
    rows = [
        (encode(each.prompt), answers[chat["messages"][-1]["content"]])
        for each, chat in zip(learnt.examples, chats, strict=True)
    ]
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids, targets = (
        torch.zeros(len(rows), width, dtype=torch.long),
        torch.full((len(rows), width), -100),
    )
    for at, (prompt, answer) in enumerate(rows):
        ids[at, : len(prompt) + len(answer)] = torch.tensor([*prompt, *answer])
        targets[at, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
    torch.manual_seed(3)
    optimizer = torch.optim.AdamW(model.trainable_parameters(), lr=1e-2)
    # Towards 0, or a last large step may leave a message between two answers on some machine.
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=EPOCHS)
    model.start_training()
    for _ in range(EPOCHS):
        order = torch.randperm(len(rows))
        for batch in (order[at : at + 15] for at in range(0, len(rows), 15)):
            loss = model.causal_lm(input_ids=ids[batch], labels=targets[batch]).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    model.peft_model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def imported(
    adapter: Path, tiny_base: Path, sealed: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    run = tmp_path_factory.mktemp("imported") / "run"
    code, record, error = import_lora(adapter, tiny_base, sealed, run, "--unseen", "made up later")
    assert code == 0, error
    return run, record


def import_lora(
    adapter: Path, base: Path, dataset: Dataset, run: Path, *words: object
) -> tuple[int, Any, str]:
    prompts = adapter.parent / "train.jsonl"
    if "--label-map" not in words:
        words = (*words, "--label-map", adapter.parent / "map.toml")
    return call(
        *("import", adapter, "--base", base, "--prompts", prompts, "--out", run, "--json"),
        *("--dataset", dataset.directory, "--set", "review_precision=0.6", *words),
    )


def test_it_answers_as_transformers_generate(
    imported: tuple[Path, dict[str, Any]], adapter: Path, tiny_base: Path, sealed: Dataset
) -> None:
    _, record = imported
    found = record["imported"]
    assert found["form"] == "lora"
    assert found["served"]["messages"] == len(sealed.validation)
    assert found["served"]["labels_differ"] == 0
    assert found["original_accuracy"] == found["served_accuracy"] > 0.5
    assert found["prompts"]["same_tokens"] == found["prompts"]["compared"] == 90


def test_the_prompt_is_that_of_the_training_and_the_codes_are_the_words(
    imported: tuple[Path, dict[str, Any]], tiny_base: Path
) -> None:
    run, _ = imported
    encoders = load_tokenizer(tiny_base).encoders
    manifest = verify_adapter(run / "adapter", tiny_base, encoders)
    assert manifest.kind == "lora-code"
    assert manifest.prompt.prefix == (f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n")
    assert manifest.prompt.suffix == "<|im_end|>\n<|im_start|>assistant\n"
    words = {label: code.text for label, code in manifest.codes.items()}
    assert words == {label: f"{words}<|im_end|>" for label, words in ANSWERS.items()}
    assert len(find_branches(manifest.codes.values())) == 2
    assert manifest.data["imported"] == {
        "form": "lora",
        "learnt": "unknown",
        "unseen": "made up later",
    }


def test_every_command_takes_it(
    imported: tuple[Path, dict[str, Any]], tiny_base: Path, sealed: Dataset, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(imported[0], run)
    code, record, error = call(
        *("evaluate", run / "adapter", "--dataset", sealed.directory, "--base", tiny_base, "--json")
    )
    assert code == 0, error
    assert record["accuracy"] > 0.5
    assert record["outside_labels"]["constrained"] == 0
    code, _, error = call(
        *("duel", run / "adapter", "--dataset", sealed.directory, "--base", tiny_base, "--json"),
        *("--evaluation", run / "evaluation"),
    )
    assert code in {0, 3}, error
    code, _, error = call("report", run, "--json")
    assert code == 0, error
    page = (run / "report.html").read_text("utf-8")
    assert "prompts with the same tokens as in training" in page


def test_generation_finds_no_label_in_other_words(adapter: Path, tiny_base: Path) -> None:
    model = read_lora(adapter).load(tiny_base)
    tokenizer = load_tokenizer(tiny_base)
    assert generate(model, tokenizer, ["hello"], {"a": "something else"}) == [None]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"use_dora": True}, "has DoRA"),
        ({"modules_to_save": ["lm_head"]}, "whole layers that were trained"),
        ({"rank_pattern": {"q_proj": 4}}, "layers of several ranks"),
        ({"bias": "all"}, "trained biases"),
        ({"init_lora_weights": "pissa"}, "began with pissa"),
        ({"peft_type": "IA3"}, "PEFT's type IA3"),
        ({"task_type": "SEQ_CLS"}, "was trained for SEQ_CLS"),
    ],
)
def test_what_cannot_be_served_is_refused(
    adapter: Path, tiny_base: Path, sealed: Dataset, tmp_path: Path, change: dict[str, Any],
    problem: str,
) -> None:  # fmt: skip
    other = tmp_path / "adapter"
    shutil.copytree(adapter, other)
    for file in ("train.jsonl", "map.toml"):
        shutil.copy(adapter.parent / file, tmp_path)
    config = json.loads((other / CONFIG).read_text("utf-8")) | change
    (other / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    code, _, error = import_lora(other, tiny_base, sealed, tmp_path / "run")
    assert code == 2
    assert problem in error
    assert not (tmp_path / "run").exists()


def test_weights_that_are_not_loras_are_refused(adapter: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter, tmp_path / "adapter")
    state = load_file(adapter / WEIGHTS) | {"base_model.model.lm_head.weight": torch.zeros(2, 2)}
    save_file(state, tmp_path / "adapter" / WEIGHTS)
    with pytest.raises(Exception, match=r"not LoRA's \(base_model.model.lm_head.weight\)"):
        read_lora(tmp_path / "adapter")
    (tmp_path / "adapter" / WEIGHTS).unlink()
    with pytest.raises(Exception, match="save it again with safe_serialization=True"):
        read_lora(tmp_path / "adapter")


def test_a_scale_by_the_root_of_the_rank_is_kept(adapter: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter, tmp_path / "adapter")
    config = json.loads((adapter / CONFIG).read_text("utf-8")) | {"use_rslora": True}
    (tmp_path / "adapter" / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    assert read_lora(tmp_path / "adapter").lora.scale == pytest.approx(32 / 16**0.5)
    assert read_lora(adapter).lora.scale == 2


def test_layers_that_it_leaves_alone_change_nothing(
    adapter: Path, tiny_base: Path, tmp_path: Path
) -> None:
    """``layers_to_transform`` and the like: the file has no weights of the other layers."""
    shutil.copytree(adapter, tmp_path / "adapter")
    state = {
        name: weights for name, weights in load_file(adapter / WEIGHTS).items() if ".1." not in name
    }
    save_file(state, tmp_path / "adapter" / WEIGHTS)
    model = read_lora(tmp_path / "adapter").load(tiny_base)
    assert all(
        bool(weights.any()) == (".1." not in name) for name, weights in model.state_dict().items()
    )


def test_forms_of_a_training_file_show_the_same_prompt(
    chats: Chats, tiny_base: Path, tmp_path: Path
) -> None:
    texts = [[turn["content"] for turn in chat["messages"]] for chat in chats]
    before, after = (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n",
    )
    forms = {
        "messages": chats,
        "pairs": [
            {"prompt": chat["messages"][:-1], "completion": chat["messages"][-1:]} for chat in chats
        ],
        "sharegpt": [
            {
                "conversations": [
                    {"from": "system", "value": system},
                    {"from": "human", "value": message},
                    {"from": "gpt", "value": answer},
                ]
            }
            for system, message, answer in texts
        ],
        "texts": [
            {"prompt": f"{before}{message}{after}", "completion": answer}
            for _, message, answer in texts
        ],
    }
    found = {
        form: read_learnt(write_lines(tmp_path / f"{form}.jsonl", lines), tmp_path, tiny_base)
        for form, lines in forms.items()
    }
    for each in found.values():
        assert (each.prefix, each.suffix) == (before, after)
        assert each.answers == {words: f"{words}<|im_end|>" for words in ANSWERS.values()}
        assert [one.message for one in each.examples] == [message for _, message, _ in texts]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda chats: chats[:9], "known from 10 different ones"),
        (lambda chats: [{"text": "a"}] * 20, "not a chat|cannot be read"),
        (
            lambda chats: [
                {"messages": [{"role": "system", "content": f"It is {at}."}, *chat["messages"][1:]]}
                for at, chat in enumerate(chats)
            ],
            "differ in more than the message",
        ),
        (
            lambda chats: [
                {"messages": [*chat["messages"][:-1], {"role": "assistant", "content": text}]}
                for at, chat in enumerate(chats)
                for text in [("refund", '{"label": "refund"}')[at % 2]]
            ],
            "not always the same text",
        ),
    ],
)
def test_prompts_that_no_worker_could_send_are_refused(
    chats: Chats, tiny_base: Path, tmp_path: Path, change: Callable[[Chats], Chats], problem: str
) -> None:
    path = write_lines(tmp_path / "train.jsonl", change(chats))
    with pytest.raises(Exception, match=problem):
        read_learnt(path, tmp_path, tiny_base)


def test_an_answer_that_was_not_trained_is_not_learnt(
    chats: Chats, tiny_base: Path, tmp_path: Path
) -> None:
    """OpenAI's ``weight``: the label of a line is its last answer with a weight."""
    lines = [
        {
            "messages": [
                *chat["messages"],
                {"role": "user", "content": "thanks"},
                {"role": "assistant", "content": "You are welcome.", "weight": 0},
            ]
        }
        for chat in chats
    ]
    found = read_learnt(write_lines(tmp_path / "train.jsonl", lines), tmp_path, tiny_base)
    assert found.answers == {words: f"{words}<|im_end|>" for words in ANSWERS.values()}


def test_weights_of_another_base_leave_the_run_as_it_was(
    adapter: Path, tiny_base: Path, sealed: Dataset, imported: tuple[Path, Any], tmp_path: Path
) -> None:
    other, run = tmp_path / "adapter", tmp_path / "run"
    shutil.copytree(adapter, other)
    shutil.copytree(imported[0], run)
    for file in ("train.jsonl", "map.toml"):
        shutil.copy(adapter.parent / file, tmp_path)
    state = {
        name: weights[:, :8].contiguous() for name, weights in load_file(adapter / WEIGHTS).items()
    }
    save_file(state, other / WEIGHTS)
    code, _, error = import_lora(other, tiny_base, sealed, run, "--replace")
    assert code == 2
    assert "the weights do not fit this base" in error
    assert load_adapter(run / "adapter").kind == "lora-code"


@pytest.mark.parametrize("option", ["--labels", "--messages"])
def test_options_of_classifiers_are_refused(
    adapter: Path, tiny_base: Path, sealed: Dataset, tmp_path: Path, option: str
) -> None:
    given = tmp_path / "given.csv"
    given.write_text("message\nhello\n", encoding="utf-8")
    code, _, error = import_lora(adapter, tiny_base, sealed, tmp_path / "run", option, given)
    assert code == 2
    assert "are for classifiers, not for a LoRA adapter" in error
    words = ("--dataset", sealed.directory, "--out", tmp_path / "run", "--base", tiny_base)
    code, _, error = call("import", tmp_path / "model.onnx", *words)
    assert code == 2
    assert "are for a LoRA adapter, not for a classifier" in error


def test_answers_are_mapped_to_labels(
    adapter: Path, tiny_base: Path, sealed: Dataset, tmp_path: Path
) -> None:
    given = tmp_path / "map.toml"
    given.write_text(LABEL_MAP.replace('"refund"', '"payment"'), encoding="utf-8")
    code, _, error = import_lora(adapter, tiny_base, sealed, tmp_path / "run", "--label-map", given)
    assert code == 2
    assert "no output for the label 'refund'" in error
    code, _, error = import_lora(adapter, tiny_base, sealed, tmp_path / "run", "--set", "onnx=fp32")
    assert code == 2
    assert "not a setting of an import" in error


def test_a_claim_that_the_training_file_contradicts_is_refused(
    adapter: Path, chats: Chats, tiny_base: Path, sealed: Dataset, tmp_path: Path
) -> None:
    shutil.copytree(adapter, tmp_path / "adapter")
    shutil.copy(adapter.parent / "map.toml", tmp_path)
    learnt = sealed.validation[0]
    chat = {
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": learnt.message},
            {"role": "assistant", "content": ANSWERS[learnt.label]},
        ]
    }
    write_lines(tmp_path / "train.jsonl", [*chats, chat])
    copy, run = tmp_path / "adapter", tmp_path / "run"
    code, _, error = import_lora(copy, tiny_base, sealed, run, "--unseen", "came later")
    assert code == 2
    assert "1 of 30 validation messages are in" in error
    code, _, error = import_lora(copy, tiny_base, sealed, run)
    assert code == 0, error
    assert np.isfinite(load_adapter(run / "adapter").calibration.temperature)
