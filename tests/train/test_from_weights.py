"""`[model] from`: training begins with the weights of a folder or a run, with their tokenizer, and
is otherwise a training like any.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.helpers.faulty import Killed, before_step
from tests.helpers.hf_models import edit, write_folder
from tests.helpers.refined import refined_run
from tests.helpers.token_run import FIXED, weights_digest
from tests.helpers.trained import documents

from groundup.artifacts.metrics import Metrics
from groundup.artifacts.pretrained import find_pretrained, license_of
from groundup.artifacts.tokenizer import Tokenizer
from groundup.errors import ExpensiveError, GroundupError, RecipeError
from groundup.model.hf_io import load_model
from groundup.plan import check_plan
from groundup.recipe import Recipe, Train, load_recipe
from groundup.runtime.files import read_json
from groundup.runtime.lock import LOCK, write_lock
from groundup.runtime.run import Run
from groundup.runtime.sealed import Ledger
from groundup.tokenize.stage import run as tokenize
from groundup.train import trainer as training
from groundup.train.setup import TrainSetup
from groundup.train.stage import begin, prepare
from groundup.train.stage import run as train
from groundup.train.trainer import Trainer

SETTINGS = FIXED | {
    "steps": 6,
    "batch_tokens": 192,
    "micro_batch": 6,
    "learning_rate": 1e-3,
    "muon_learning_rate": 2e-3,
    "warmup_steps": 2,
    "validate_every": 3,
    "validation_tokens": 640,
    "checkpoint_every": 2,
    "sample_seconds": 1e9,
}
SHARDS = {"books.1": documents(1, 40), "web.1": documents(3, 40)}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with grouped heads, a head of its own and more ids than its tokenizer."""
    path = write_folder(tmp_path_factory.mktemp("base") / "small-llama", max_position_embeddings=32)
    (path / "README.md").write_text('---\nlicense: "mit"\ntags: [x]\n---\n\nlicense: other\n')
    return path


def run_of(root: Path, base: Path, **model: object) -> Run:
    """A run whose tokens are ready."""
    run = refined_run(root, SHARDS, model={"from": str(base), **model}, train=SETTINGS)
    tokenize(run)
    return run


def lines(root: Path) -> list[dict[str, float]]:
    return Metrics(root / "train" / "metrics.jsonl").read()


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained") / "run"
    run = run_of(root, folder)
    train(run)
    write_lock(run.root, run.recipe)
    return root


def test_it_begins_where_the_folder_stood(trained: Path, folder: Path) -> None:
    # Protects: step 0 is the model of the folder, which the first line of the metrics measures;
    # training then moves it.
    first = lines(trained)[0]
    last = [line["validation_loss"] for line in lines(trained) if "validation_loss" in line][-1]
    assert first["step"] == 0 and first["validation_loss"] > last
    model = load_model(folder).eval()
    setup = TrainSetup.read(trained)
    assert setup is not None
    rows = torch.from_numpy(setup.open_loader(trained, "validation").samples(0, 20))
    with torch.no_grad():
        assert first["validation_loss"] == pytest.approx(
            float(model.loss(rows[:, :-1], rows[:, 1:])), rel=1e-5
        )
    end = load_model(trained / "train" / "checkpoints" / "step-000006")
    assert end.config == model.config
    assert all(
        not torch.equal(a, b) for a, b in zip(end.parameters(), model.parameters(), strict=True)
    )


def test_checkpoints_are_llamas_to_transformers(trained: Path) -> None:
    # Protects: guarantee 10 along the way: layout and head are those that came in, with the
    # tokenizer beside them.
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    path = trained / "train" / "checkpoints" / "step-000006"
    theirs, ours = transformers.AutoModelForCausalLM.from_pretrained(path), load_model(path)
    assert type(theirs).__name__ == "LlamaForCausalLM"
    ids = torch.tensor([Tokenizer.load(path).encode("the cat sat on the mat")])
    with torch.no_grad():
        assert torch.allclose(theirs(ids).logits, ours(ids), atol=1e-4)
    assert (
        transformers.AutoTokenizer.from_pretrained(path)("the cat sat on the mat")["input_ids"]
        == ids[0].tolist()
    )


def test_its_tokenizer_is_taken_and_its_end_ends_documents(trained: Path, folder: Path) -> None:
    # Protects: ids mean what they meant to those weights.
    tokenizer = Tokenizer.load(trained / "tokenize")
    theirs, ours = (
        json.loads((folder / "tokenizer.json").read_text()),
        json.loads((trained / "tokenize" / "tokenizer.json").read_text()),
    )
    assert theirs | {"post_processor": None} == ours
    assert tokenizer.end == "<|end_of_text|>"
    setup = TrainSetup.read(trained)
    assert setup is not None
    assert setup.config.vocab_size == setup.vocabulary + 7 == tokenizer.vocab_size + 7


def test_where_it_came_from_is_said(trained: Path, folder: Path) -> None:
    # Protects: nobody mistakes it for a model that was trained from scratch; no folder of this
    # machine goes into what is shared.
    lock = tomllib.loads((trained / LOCK).read_text())
    table = read_json(trained / "train" / "train.json")
    assert lock["weights"] == {
        "name": "small-llama",
        "license": "mit",
        "sha256": table["base"]["content"],
    }
    (event,) = Ledger(trained / "train" / "ledger.jsonl").events("from")
    assert event["name"] == "small-llama" and event["license"] == "mit"
    for path in (trained / "train" / "checkpoints").rglob("*.json"):
        assert str(folder.parent) not in path.read_text()


@pytest.mark.parametrize("step", [1, 3, 5])
def test_killed_and_resumed_ends_alike(
    trained: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    # Protects: guarantee 1, before the first checkpoint too, and without reading the folder again
    # once there is one.
    def die(now: int) -> None:
        if now == step:
            raise Killed

    run = run_of(tmp_path / "run", folder)
    setup = prepare(run)
    begin(run, setup)
    with pytest.raises(Killed):
        before_step(Trainer(run.root, setup), die).train()
    if step > 2:
        monkeypatch.setattr(training, "read_weights", lambda *_: pytest.fail("read again"))
    train(run)
    assert weights_digest(run.root, 6) == weights_digest(trained, 6)
    assert [(line["step"], line.get("loss")) for line in lines(run.root)] == [
        (line["step"], line.get("loss")) for line in lines(trained)
    ]


def test_other_weights_are_another_training(folder: Path, tmp_path: Path) -> None:
    # Protects: guarantee 5: the content of the weights is part of the key, the name of their folder
    # is not.
    shutil.copytree(folder, tmp_path / "base")
    run = run_of(tmp_path / "run", tmp_path / "base")
    train(run)
    shutil.move(tmp_path / "base", tmp_path / "moved")
    moved = dataclasses.replace(
        run.recipe, model=dataclasses.replace(run.recipe.model, base=str(tmp_path / "moved"))
    )
    again = Run(run.root, moved)
    tokenize(again)
    train(again)
    assert again.built == 0
    with (run.root / "train" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "seconds": 660.0}\n')
    path = tmp_path / "moved" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"][0] += 0.5
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(
        ExpensiveError, match=r"from was \"[0-9a-f]{32}\", is \"[0-9a-f]{32}\".*--redo train"
    ):
        train(Run(run.root, moved))


def test_weights_that_are_no_numbers_are_refused(folder: Path, tmp_path: Path) -> None:
    # Protects: one line instead of steps that are all refused.
    shutil.copytree(folder, tmp_path / "base")
    tensors = load_file(tmp_path / "base" / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(GroundupError, match="weights are not finite"):
        train(run_of(tmp_path / "run", tmp_path / "base"))


def test_a_run_never_goes_on_from_itself(trained: Path, tmp_path: Path) -> None:
    # Protects: making room for the new training would delete what it is to begin with.
    shutil.copytree(trained, tmp_path / "run")
    for base in ("run", "run/train/checkpoints/step-000006"):
        recipe = recipe_from(tmp_path / "recipe.toml", base)
        with pytest.raises(GroundupError, match=r"cannot go on from itself.*--out"):
            check_plan(Run(tmp_path / "run", recipe), trains=True)
    assert weights_digest(tmp_path / "run", 6)


def test_rates_for_fresh_weights_are_remarked_upon(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Protects: the defaults would wash out what a model knows; whoever sets a rate is not told.
    run = run_of(tmp_path / "run", folder)
    begin(run, prepare(run))
    assert "fresh weights" not in capsys.readouterr().err
    usual = dataclasses.replace(
        run.recipe.train,
        learning_rate=Train().learning_rate,
        muon_learning_rate=Train().muon_learning_rate,
    )
    run = Run(run.root, dataclasses.replace(run.recipe, train=usual))
    begin(run, prepare(run))
    assert "a tenth of them keeps more" in capsys.readouterr().err


def test_a_shorter_context_and_dropout_are_the_recipes(folder: Path, tmp_path: Path) -> None:
    # Protects: windows of training need not be as long as what the model was built for.
    run = run_of(tmp_path / "run", folder, context=16, dropout=0.25)
    setup = prepare(run)
    assert (setup.config.context, setup.config.dropout, setup.sequences) == (16, 0.25, 12)
    longer = dataclasses.replace(
        run.recipe, model=dataclasses.replace(run.recipe.model, context=64)
    )
    with pytest.raises(
        RecipeError, match=r"context 64 is more than the 32 positions of .*config\.json"
    ):
        find_pretrained(longer)


def test_a_vocabulary_across_two_bytes(folder: Path, tmp_path: Path) -> None:
    # Protects: ids are stored as the tokenizer needs them, whatever more rows the embedding has.
    write_folder(
        tmp_path / "base",
        padding=70_000,
        max_position_embeddings=32,
        hidden_size=8,
        num_hidden_layers=1,
    )
    run = run_of(tmp_path / "run", tmp_path / "base")
    setup = prepare(run)
    begin(run, setup)
    trainer = Trainer(run.root, setup)
    assert (
        trainer.loader.samples(0, 1).shape == (1, 33) and trainer.model.config.vocab_size > 70_000
    )


# A run as the place to go on from.


def recipe_from(path: Path, base: str, **model: object) -> Recipe:
    keys = "".join(f"{name} = {json.dumps(value)}\n" for name, value in model.items())
    path.write_text(f'[[source]]\npath = "raw"\n[model]\nfrom = {json.dumps(base)}\n{keys}')
    return load_recipe(path)


def test_a_run_its_checkpoints_and_copies_of_them(trained: Path, tmp_path: Path) -> None:
    # Protects: a run directory means its default model; a path is relative to the recipe; names say
    # run and step.
    best = f"step-{read_json(trained / 'train' / 'best.json')['step']:06d}"
    shutil.copytree(trained, tmp_path / "runs" / "first")
    shutil.copytree(trained / "train" / "checkpoints" / best, tmp_path / "copy")
    for base, name, licence in (
        ("runs/first", f"test/{best}", ""),
        ("runs/first/train/checkpoints/step-000006", "test/step-000006", ""),
        (str(tmp_path / "copy"), "copy", ""),
    ):
        found = find_pretrained(recipe_from(tmp_path / "recipe.toml", base))
        assert found is not None
        found.check(tmp_path / "run")
        assert (found.name.replace("run/", "test/"), found.license) == (name, licence)


def test_a_folder_of_the_hubs_cache_has_its_name(folder: Path, tmp_path: Path) -> None:
    # Protects: a report names organisation and model, and not a commit.
    place = tmp_path / "models--Some--Small-1.0" / "snapshots" / "0123abcd"
    shutil.copytree(folder, place)
    found = find_pretrained(recipe_from(tmp_path / "recipe.toml", str(place)))
    assert found is not None and found.name == "Some/Small-1.0"


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n", "apache-2.0"),
        ("---\nlicense: 'odd\x1b[31m'\n---\n", "odd[31m"),
        ("license: mit\n", ""),
        ("---\ntags: x\n---\nlicense: mit", ""),
        ("---\nlicense: mit", ""),
    ],
)
def test_a_licence_is_what_the_front_matter_says(tmp_path: Path, text: str, licence: str) -> None:
    # Protects: what is not stated is not made up.
    assert license_of(tmp_path) == ""
    (tmp_path / "README.md").write_text(text)
    assert license_of(tmp_path) == licence


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"preset": "tiny"}, "leave out preset"),
        ({"layers": 3, "heads": 2}, "leave out layers and heads"),
        ({"rope_theta": 500.0}, "leave out rope_theta"),
        ({"width": 64}, "leave out width"),
    ],
)
def test_sizes_beside_from_are_one_line(
    tmp_path: Path, model: dict[str, object], said: str
) -> None:
    # Protects: a setting that would be passed over in silence.
    with pytest.raises(RecipeError, match=said):
        recipe_from(tmp_path / "recipe.toml", "x", **model)


def test_what_cannot_be_gone_on_from_is_one_line(folder: Path, tmp_path: Path) -> None:
    # Protects: named by the recipe's own words, or by the file, before anything is computed.
    (tmp_path / "empty").mkdir()
    (tmp_path / "recipe.toml").write_text(
        '[[source]]\npath = "raw"\n[model]\nfrom = "x"\n[tokenize]\nvocab_size = 500\n'
    )
    with pytest.raises(RecipeError, match=r"vocab_size.*brings its own tokenizer"):
        load_recipe(tmp_path / "recipe.toml")
    for base, said in (
        ("missing", 'from = "missing": there is no such folder'),
        ("empty", "neither a config.json nor a run"),
    ):
        with pytest.raises(RecipeError, match=said):
            find_pretrained(recipe_from(tmp_path / "recipe.toml", base))
    shutil.copytree(folder, tmp_path / "base")
    for name, change, said in (
        (
            "config.json",
            {"rope_scaling": {"rope_type": "yarn"}},
            r"base/config\.json: rope_scaling",
        ),
        ("config.json", {"vocab_size": 100}, "does not fit its config.json"),
        (
            "tokenizer.json",
            {"normalizer": {"type": "NFKC"}},
            r"tokenizer\.json: .*normalizer is NFKC",
        ),
    ):
        before = (tmp_path / "base" / name).read_bytes()
        edit(tmp_path / "base" / name, **change)
        with pytest.raises(GroundupError, match=said) as caught:
            found = find_pretrained(recipe_from(tmp_path / "recipe.toml", "base"))
            assert found is not None
            found.check(tmp_path / "run")
        assert "\n" not in str(caught.value)
        (tmp_path / "base" / name).write_bytes(before)
    write_folder(tmp_path / "narrow", padding=-1)
    narrow = find_pretrained(recipe_from(tmp_path / "recipe.toml", "narrow"))
    with pytest.raises(
        GroundupError, match=r"narrow/tokenizer\.json: has \d+ ids, and the model's vocab_size is"
    ):
        narrow.check(tmp_path / "run")  # type: ignore[union-attr]
