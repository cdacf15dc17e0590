"""A classifier that was trained elsewhere becomes an adapter that answers as it did."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from tokenizers import Tokenizer

from tests.support.foreign import LABELS, make_huggingface, make_text_onnx, make_token_onnx
from tests.support.trainer_world import call
from tests.unit.trainer.report.page import Page, refuse_unknown_options
from trainer.dataset.folder import Dataset
from trainer.model.onnx_files import export_classifier
from worker.contract import build_prompt, load_adapter, read_manifest
from worker.contract.scoring import decide_from_logits
from worker.engine.open import open_engine
from worker.engine.port import HeadLogits

pytestmark = pytest.mark.slow

Floats = Any
Original = Callable[[Sequence[str]], Floats]

FORMS = ("huggingface", "tokens", "text")
EXACT = ("--set", "onnx=fp32")
WHY = "made up after the training"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("foreign")
    classifier = make_huggingface(folder / "huggingface")
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n", encoding="utf-8")
    return {
        "huggingface": classifier,
        "tokens": make_token_onnx(classifier, folder / "tokens" / "model.onnx"),
        "text": make_text_onnx(folder / "text" / "model.onnx"),
        "labels": folder / "labels.txt",
    }


@pytest.fixture(scope="module")
def imported(
    models: dict[str, Path], sealed: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, dict[str, Any]]]:
    """The run folder and the record of each form, in float32."""
    found = {}
    for form in FORMS:
        run = tmp_path_factory.mktemp("imported") / "run"
        words = [] if form == "huggingface" else ["--labels", models["labels"]]
        code, record, error = call(
            *("import", models[form], "--dataset", sealed.directory, "--out", run, *words),
            *("--unseen", WHY, *EXACT, "--json"),
        )
        assert code == 0, error
        found[form] = run, record
    return found


def run_import(model: Path, dataset: Dataset, run: Path, *words: object) -> tuple[int, Any, str]:
    return call("import", model, "--dataset", dataset.directory, "--out", run, "--json", *words)


def original_of(form: str, models: dict[str, Path]) -> Original:
    """The model as its own library asks it: probabilities, (texts, outputs)."""
    if form == "huggingface":
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(models[form])
        model = AutoModelForSequenceClassification.from_pretrained(models[form]).eval()

        def ask(texts: Sequence[str]) -> Floats:
            with torch.inference_mode():
                rows = [model(**tokenizer(text, return_tensors="pt")).logits[0] for text in texts]
            return torch.softmax(torch.stack(rows), dim=1).numpy()

        return ask
    file = onnx.load(models[form])
    for node in file.graph.node:
        for attribute in node.attribute:
            if attribute.name == "locale":  # this machine may lack it
                attribute.s = b"C.UTF-8"
    session = onnxruntime.InferenceSession(
        file.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    if form == "text":
        return lambda texts: session.run(
            ["probabilities"], {"text": np.array(texts, dtype=object)[:, None]}
        )[0]
    reader = Tokenizer.from_file(str(models[form].with_name("tokenizer.json")))

    def ask_tokens(texts: Sequence[str]) -> Floats:
        rows = []
        for text in texts:
            ids = np.array([reader.encode(text).ids], dtype=np.int64)
            given = {
                "input_ids": ids,
                "attention_mask": np.ones_like(ids),
                "token_type_ids": np.zeros_like(ids),
            }
            rows.append(session.run(["probabilities"], given)[0][0])
        return np.array(rows)

    return ask_tokens


def serve(adapter: Path, texts: Sequence[str], cache: Path, *, temperature: float) -> Floats:
    """Ask the worker's engine: label probabilities, (texts, labels)."""
    opened = open_engine(adapter=adapter, cache_dir=cache)
    head, names = opened.manifest.head, opened.manifest.taxonomy.names
    assert head is not None
    try:
        rows = []
        for text in texts:
            prompt = build_prompt(opened.manifest.prompt, text, opened.encoders.plain)
            assert prompt is not None
            answer = opened.engine.submit(prompt.ids).result()
            assert isinstance(answer, HeadLogits)
            scores = decide_from_logits(answer.logits, head, names, temperature).scores
            rows.append([scores[name] for name in LABELS])
        return np.array(rows)
    finally:
        opened.engine.close()


def holdout_texts(dataset: Dataset) -> list[str]:
    lines = (dataset.directory / "holdout.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["instruction"] for line in lines]


@pytest.mark.parametrize("form", FORMS)
def test_what_is_served_answers_as_the_original_did(
    form: str,
    imported: dict[str, tuple[Path, dict[str, Any]]],
    models: dict[str, Path],
    sealed: Dataset,
    tmp_path: Path,
) -> None:
    run, record = imported[form]
    texts = [*holdout_texts(sealed), "Grüße: wo ist mein Paket? MONEY, it's late"]
    ours = serve(run / "adapter", texts, tmp_path, temperature=1.0)
    theirs = original_of(form, models)(texts)
    assert np.abs(ours - theirs).max() < 1e-5
    assert list(ours.argmax(axis=1)) == list(theirs.argmax(axis=1))
    assert len(set(ours.argmax(axis=1))) == len(LABELS)  # it has opinions
    compared = record["imported"]
    assert compared["served"]["labels_differ"] == 0
    assert compared["served"]["max_probability_difference"] < 1e-5
    assert compared["original_accuracy"] == compared["served_accuracy"] > 0.8


@pytest.mark.parametrize("form", FORMS)
def test_every_later_command_takes_it(
    form: str,
    imported: dict[str, tuple[Path, dict[str, Any]]],
    sealed: Dataset,
    tmp_path: Path,
) -> None:
    run = shutil.copytree(imported[form][0], tmp_path / "run")
    manifest = load_adapter(run / "adapter")
    assert manifest.kind == "encoder"
    assert manifest.data["imported"] == {
        "form": "huggingface" if form == "huggingface" else "onnx",
        "learnt": "unknown",
        "unseen": WHY,
    }
    assert "train" not in manifest.data
    data = ("--dataset", sealed.directory)
    code, found, error = call("evaluate", run / "adapter", *data, "--no-steering", "--json")
    assert (code, "note" in error) == (0, False)
    assert found["accuracy"] > 0.8
    code, _, error = call("report", run)
    assert code == 0, error
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "how and what it learnt is unknown" in page
    assert WHY in page
    store = tmp_path / "store"
    rules = ("ece=0.5", "steering_unreviewed=false")  # so few messages show neither
    sets = [word for rule in rules for word in ("--set", rule)]
    code, published, error = call("publish", run, "--store", store, *sets, "--json")
    assert code == 0, (published, error)
    (unseen,) = [row for row in published["gate"]["criteria"] if row["name"] == "hold-out unseen"]
    assert WHY in unseen["found"]
    digest = json.loads((store / "current.json").read_text(encoding="utf-8"))["digest"]
    card = (store / f"{digest}.README.md").read_text(encoding="utf-8")
    assert "What it learnt is unknown" in card
    assert WHY in card
    texts = holdout_texts(sealed)
    served = serve(store / digest, texts, tmp_path, temperature=manifest.calibration.temperature)
    assert (served.argmax(axis=1) >= 0).all()


@pytest.mark.parametrize(
    "text", ["".join(map(chr, range(1, 0x250))), "🙏\n\tĠ <|endoftext|> [CLS]"]
)
def test_a_graph_of_text_gets_every_byte_as_a_token(
    text: str, imported: dict[str, tuple[Path, dict[str, Any]]]
) -> None:
    run, _ = imported["text"]
    tokenizer = Tokenizer.from_file(str(run / "adapter" / "tokenizer.json"))
    assert tokenizer.encode(text).ids == list(text.encode("utf-8"))


def test_a_long_text_keeps_its_ends(
    imported: dict[str, tuple[Path, dict[str, Any]]], tmp_path: Path
) -> None:
    middle = "card declined invoice charged ü " * 2000
    texts = [f"refund money {middle} paid", "refund money paid"]
    served = serve(imported["text"][0] / "adapter", texts, tmp_path, temperature=1.0)
    assert served[0].argmax() == LABELS.index("payment")  # 8,192 bytes of it are read
    assert served[1].argmax() == LABELS.index("refund")
    golden = read_manifest(imported["text"][0] / "adapter").golden
    assert [prompt.truncated for prompt in golden].count(True) == 1


def test_without_a_reason_the_gate_and_the_duel_refuse_it(
    models: dict[str, Path], sealed: Dataset, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    code, record, error = run_import(models["text"], sealed, run, "--labels", models["labels"])
    assert code == 0, error
    assert record["imported"]["unseen"] is None
    data = ("--dataset", sealed.directory)
    code, _, error = call("evaluate", run / "adapter", *data, "--no-steering", "--json")
    assert code == 0
    assert "what the imported model learnt is unknown" in error
    code, _, error = call("publish", run, "--store", tmp_path / "store", "--json")
    assert code == 3
    assert "hold-out unseen" in error
    code, _, error = call("report", run)
    assert code == 0, error
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    assert "Say why it has not seen the hold-out" in page.words
    for words in page.commands:
        refuse_unknown_options(words)
    (again,) = [words for words in page.commands if "REASON" in words]
    assert again[2:5] == [str(models["text"]), "--labels", str(models["labels"])]
    assert again[-2:] == ["--unseen", "REASON"]
    code, _, error = call("duel", run / "adapter", *data, "--json")
    assert code == 2
    assert "import it again with --unseen REASON" in error


def test_the_command_that_repeats_an_import_has_its_settings(
    imported: dict[str, tuple[Path, dict[str, Any]]], models: dict[str, Path]
) -> None:
    _, record = imported["text"]
    assert record["imported"]["options"] == ["--labels", str(models["labels"]), *EXACT]


def test_the_record_of_an_import_is_no_recipe(
    imported: dict[str, tuple[Path, dict[str, Any]]], sealed: Dataset, tmp_path: Path
) -> None:
    """No command that takes a recipe does any work with it."""
    record = imported["huggingface"][0] / "training.json"
    (decisions := tmp_path / "decisions.csv").touch()
    rows = [f"about matter {chr(97 + at)},{'xy'[at % 2]}" for at in range(26)]
    (tickets := tmp_path / "tickets.csv").write_text("\n".join(["message,label", *rows]))
    out, data = ("--out", tmp_path / "out"), ("--dataset", sealed.directory)
    for words in (
        ("train", *data, *out),
        ("propose", *data, *out, "--store", tmp_path, "--decisions", decisions),
        ("start", tickets, *out),
    ):
        code, _, error = call(*words, "--recipe", record)
        assert code == 2, words
        assert "records an import" in error
        assert "config/trainer-encoder.toml" in error
    assert not (tmp_path / "out" / "data").exists()


def test_a_message_is_read_by_our_rules_and_the_comparison_says_so(
    models: dict[str, Path], sealed: Dataset, tmp_path: Path
) -> None:
    raw = tmp_path / "raw.jsonl"
    mail = '<html><body><p title="refund money back paid">where is my parcel</p></body></html>'
    lines = ({"message": text} for text in (mail, "my card was declined"))
    raw.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    code, record, error = run_import(
        *(models["text"], sealed, tmp_path / "run", "--labels", models["labels"]),
        *("--messages", raw),
    )
    assert code == 0, error
    found = record["imported"]["raw"]
    assert (found["messages"], found["labels_differ"]) == (2, 1)
    assert found["max_probability_difference"] > 0.5


@pytest.mark.parametrize("architecture", ["roberta", "modernbert", "deberta"])
def test_other_architectures_come_along(architecture: str, sealed: Dataset, tmp_path: Path) -> None:
    model = make_huggingface(tmp_path / architecture, architecture, steps=10)
    code, record, error = run_import(model, sealed, tmp_path / "run", *EXACT)
    assert code == 0, error
    assert record["imported"]["served"]["max_probability_difference"] < 1e-4


def test_doubles_and_an_8_bit_file_are_served_as_they_are(
    models: dict[str, Path], sealed: Dataset, tmp_path: Path
) -> None:
    double = make_text_onnx(tmp_path / "double" / "model.onnx", double=True)
    small = tmp_path / "small" / "model.onnx"
    small.parent.mkdir()
    shutil.copy(models["tokens"].with_name("tokenizer.json"), small.parent)
    quantize_dynamic(models["tokens"], small, weight_type=QuantType.QInt8)
    for at, (path, precision) in enumerate(((double, "fp32"), (small, "int8"))):
        run = tmp_path / f"run{at}"
        code, record, error = run_import(path, sealed, run, "--labels", models["labels"])
        assert code == 0, error
        assert [each["precision"] for each in record["onnx"]] == [precision]
        assert record["imported"]["served"]["labels_differ"] == 0


def test_an_export_that_is_another_function_is_refused(
    models: dict[str, Path], sealed: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(classifier: Any, *rest: Any) -> None:
        with torch.no_grad():
            classifier.model.classifier.bias[0] += 0.5
        export_classifier(classifier, *rest)

    monkeypatch.setattr("trainer.model.foreign.export_classifier", export)
    code, _, error = run_import(models["huggingface"], sealed, tmp_path / "run")
    assert code == 4
    assert "differs from the original's by 0.5" in error
    assert not (tmp_path / "run" / "adapter").exists()


def test_labels_are_the_taxonomys_by_name_or_by_a_map(
    models: dict[str, Path], sealed: Dataset, tmp_path: Path
) -> None:
    names = tmp_path / "names.txt"
    names.write_text("Order Tracking\ngeld\nPAYMENT\n", encoding="utf-8")
    words = ("--labels", names)
    code, _, error = run_import(models["text"], sealed, tmp_path / "run", *words)
    assert code == 2
    assert "the model's output 'geld' is not a label" in error
    assert "--label-map" in error
    mapped = tmp_path / "map.toml"
    mapped.write_text('geld = "refund"\n', encoding="utf-8")
    code, record, error = run_import(
        models["text"], sealed, tmp_path / "run", *words, "--label-map", mapped
    )
    assert code == 0, error
    head = read_manifest(tmp_path / "run" / "adapter").head
    assert head is not None
    assert [(each.name, each.label) for each in head.outputs] == [
        ("Order Tracking", "order_tracking"),
        ("geld", "refund"),
        ("PAYMENT", "payment"),
    ]
    assert record["imported"]["options"] == ["--labels", str(names), "--label-map", str(mapped)]


def test_labels_in_another_order_than_the_scores_are_noticed(
    models: dict[str, Path], sealed: Dataset, tmp_path: Path
) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\n".join((*LABELS[1:], LABELS[0])), encoding="utf-8")
    code, _, error = run_import(models["text"], sealed, tmp_path / "run", "--labels", names)
    assert code == 2
    assert "in another order than the model's scores" in error
    assert not (tmp_path / "run" / "adapter").exists()


class Trap:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (Path.touch, (self.path,))  # type: ignore[return-value]


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes), encoding="utf-8")


def spoil_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(folder / "ran")))


def spoil_setfit(folder: Path) -> None:
    (folder / "model_head.pkl").write_bytes(pickle.dumps(Trap(folder / "ran")))


def spoil_body(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    kept = {name: each for name, each in weights.items() if "classifier" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def spoil_lora(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")


SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a pickle instead of safetensors": (spoil_pickle, "a .bin file is a pickle"),
    "a head in a pickle": (spoil_setfit, "a .pkl file is a pickle"),
    "its own code": (
        lambda folder: change_json(folder / "config.json", auto_map={"AutoModel": "m.M"}),
        "has auto_map: the model brings its own Python code",
    ),
    "no head in the safetensors": (spoil_body, "its safetensors lack classifier."),
    "LoRA layers alone": (spoil_lora, "is a LoRA adapter: give --base"),
    "no fast tokenizer": (
        lambda folder: (folder / "tokenizer.json").unlink(),
        "has no tokenizer.json: AutoTokenizer",
    ),
    "several labels for a message": (
        lambda folder: change_json(
            folder / "config.json", problem_type="multi_label_classification"
        ),
        "gives a message several labels",
    ),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_folder_that_cannot_be_trusted_or_used_is_refused_with_the_fix(
    spoilt: str, models: dict[str, Path], sealed: Dataset, tmp_path: Path
) -> None:
    spoil, problem = SPOILT[spoilt]
    folder = shutil.copytree(models["huggingface"], tmp_path / "model")
    spoil(folder)
    code, _, error = run_import(folder, sealed, tmp_path / "run")
    assert code == 2
    assert problem in error
    assert error.count("\n") == 1
    assert not (folder / "ran").exists()
    assert not (tmp_path / "run").exists()


def test_a_file_that_cannot_be_used_is_refused_with_the_fix(
    models: dict[str, Path], sealed: Dataset, tmp_path: Path
) -> None:
    noise, trap = tmp_path / "noise.onnx", tmp_path / "head.joblib"
    noise.write_bytes(b"not a graph")
    trap.write_bytes(pickle.dumps(Trap(tmp_path / "ran")))
    two = tmp_path / "two.txt"
    two.write_text("refund\npayment\n", encoding="utf-8")
    zipped = make_text_onnx(tmp_path / "zipped.onnx", zipped=True)
    other = tmp_path / "other.onnx"
    renamed = onnx.load(models["text"])
    renamed.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    onnx.save(renamed, other)
    labels = models["labels"]
    for model, named, problem in (
        (trap, labels, "a .joblib file is a pickle, which can run any code"),
        (noise, labels, "it is not an ONNX file"),
        (models["text"], None, "give --labels FILE with a label a line"),
        (models["text"], two, "returns 3 scores, but 2 labels are named"),
        (zipped, labels, 'export it with options={"zipmap": False}'),
        (other, labels, "it must take input_ids and attention_mask (int64), or one text"),
    ):
        words = ("--labels", named) if named else ()
        code, _, error = run_import(model, sealed, tmp_path / "run", *words)
        assert (code, problem in error) == (2, True), (problem, error)
        assert error.count("\n") == 1
    assert not (tmp_path / "ran").exists()
