"""Hosts made from text: whole, the same by their seed, and honest about where they come from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from families import FAMILIES
from peftport.errors import BadInput
from peftport.hosts import families, load_host
from peftport.hosts.fingerprint import fingerprint
from peftport.pretraining.objectives import Taught, TeacherStates
from peftport.pretraining.pretrain import (
    Settings,
    continued,
    from_scratch,
    pretrain,
    save_host,
    windows,
)
from peftport.pretraining.scratch import Sizes
from tiny_words import opinions

SIZES = Sizes(width=32, layers=1, heads=2, ffn=48, vocabulary=460, positions=64)
SETTINGS = Settings(steps=25, learning_rate=1e-2, length=24, tokens_per_batch=256)


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "opinions.txt"
    path.write_text("\n\n".join(opinions(120, seed=5)[0]))
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def tensor_names(folder: Path) -> set[str]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return set(file.keys())


# From scratch

NEW = [name for name, entry in families().items() if entry.get("scratch")]


@pytest.mark.parametrize("family", NEW)
def test_a_new_host_of_every_family_learns_loads_and_says_how_it_was_made(family, text, tmp_path):
    made = pretrain(tmp_path / "host", text, SETTINGS, family=family, sizes=SIZES)
    assert sum(made.losses[-5:]) < 0.9 * sum(made.losses[:5])
    host = load_host(str(tmp_path / "host"))
    found = host.geometry.record()
    assert found["family"] == family
    assert (found["width"], found["heads"], found["head_dim"]) == (32, 2, 16)
    assert (found["ffn"], found["vocabulary"]) == (48, len(host.tokenizer))
    assert set(found["stacks"].values()) == {1}
    record = json.loads((tmp_path / "host" / "peftport_host.json").read_text())
    assert record == made.record
    assert record["from"] is None
    assert record["text"][0]["file"] == "opinions.txt"
    assert (record["steps"], record["seed"], record["learning_rate"]) == (25, 0, 1e-2)
    assert record["losses"][-1][0] == 25
    assert {"torch", "transformers", "tokenizers", "peftport"} <= record["versions"].keys()


@pytest.mark.parametrize("family", NEW)
def test_products_in_bfloat16_train_as_well_and_are_saved_in_single_precision(
    family, text, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("peftport.hosts.precision.bf16_is_fast", lambda device: False)
    lower = Settings(**{**vars(SETTINGS), "precision": "bf16"})
    runs = {
        settings.precision: pretrain(
            tmp_path / settings.precision, text, settings, family=family, sizes=SIZES
        )
        for settings in (SETTINGS, lower)
    }
    plain, rounded = (np.asarray(runs[name].losses) for name in ("fp32", "bf16"))
    assert (plain != rounded).any()
    assert abs(plain - rounded).max() < 0.05 * plain[0]
    kept = load_file(runs["bf16"].folder / "model.safetensors")
    assert {tensor.dtype for tensor in kept.values()} == {torch.float32}
    assert runs["bf16"].record["precision"] == "bf16"
    assert caplog.text.count("single precision is several times as fast") == 1


@pytest.mark.parametrize("family", NEW)
def test_a_new_host_is_loaded_again_exactly(family, text, tmp_path):
    start = from_scratch(family, text.read_text().split("\n\n"), SIZES, False, seed=3)
    for parameter in start.model.parameters():  # so that no two tensors are equal by chance
        parameter.data.add_(0.01 * torch.randn(parameter.shape))
    ids = torch.arange(10, 22).view(2, 6)
    more = {"decoder_input_ids": ids.flip(0)} if family == "t5" else {}
    with torch.no_grad():
        before = start.model(input_ids=ids, **more).logits
        save_host(tmp_path / "host", start, {})
        loaded = type(start.model).from_pretrained(tmp_path / "host").eval()
        assert torch.equal(loaded(input_ids=ids, **more).logits, before)


def test_the_same_seed_writes_the_same_bytes_and_another_others(text, tmp_path):
    short = {"steps": 3, "length": 24, "tokens_per_batch": 256}
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        pretrain(tmp_path / name, text, Settings(seed=seed, **short), family="t5", sizes=SIZES)
    assert files(tmp_path / "one") == files(tmp_path / "same")
    assert fingerprint(tmp_path / "one") != fingerprint(tmp_path / "other")


def test_text_is_lowered_unless_the_host_is_cased(text):
    texts = text.read_text().split("\n\n")
    lowered, kept = (
        from_scratch("bert", texts, SIZES, cased, 0).tokenizer for cased in (False, True)
    )
    assert lowered("The Film")["input_ids"] == lowered("the film")["input_ids"]
    assert kept("The Film")["input_ids"] != kept("the film")["input_ids"]


def test_an_encoder_reads_its_special_tokens_around_a_text(text):
    tokenizer = from_scratch("roberta", text.read_text().split("\n\n"), SIZES, False, 0).tokenizer
    read = tokenizer.convert_ids_to_tokens(tokenizer("the film")["input_ids"])
    assert read == ["<s>", "Ġthe", "Ġfilm", "</s>"]
    assert (tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1, 2)


# Continued


@pytest.mark.parametrize("family", FAMILIES)
def test_a_continuation_keeps_all_but_the_weights(family, tiny_host, text, tmp_path):
    parent = tiny_host(family)
    made = pretrain(tmp_path / "host", text, SETTINGS, origin=str(parent))
    assert sum(made.losses[-5:]) < 0.9 * sum(made.losses[:5])
    assert made.record["from"] == {"name": str(parent), "fingerprint": fingerprint(parent)}
    before, after = load_host(str(parent)), load_host(str(tmp_path / "host"))
    assert after.geometry == before.geometry
    assert after.tokenizer.get_vocab() == before.tokenizer.get_vocab()
    sample = "the film was not very good"
    assert after.tokenizer(sample)["input_ids"] == before.tokenizer(sample)["input_ids"]
    assert tensor_names(tmp_path / "host") == tensor_names(parent)
    old, new = (
        load_file(parent / "model.safetensors"),
        load_file(after.folder / "model.safetensors"),
    )
    assert any(not torch.equal(tensor, new[name]) for name, tensor in old.items())


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("pooler", [True, False])
def test_an_encoder_without_a_head_stays_one(family, pooler, tiny_host, text, tmp_path):
    from transformers import AutoModel

    bare = tmp_path / "bare"
    shutil.copytree(tiny_host(family), bare)
    torch.manual_seed(0)
    AutoModel.from_pretrained(bare, add_pooling_layer=pooler).save_pretrained(bare)
    assert any("pooler" in name for name in tensor_names(bare)) == pooler
    one, same = (
        pretrain(tmp_path / name, text, SETTINGS, origin=str(bare)) for name in ("one", "same")
    )
    assert sum(one.losses[-5:]) < 0.9 * sum(one.losses[:5])
    assert one.losses == same.losses
    assert tensor_names(one.folder) == tensor_names(bare)
    old, new = (load_file(f / "model.safetensors") for f in (bare, one.folder))
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    assert {name for name in old if name.startswith("encoder.")} <= moved
    assert load_host(str(one.folder)).geometry == load_host(str(bare)).geometry


def test_a_new_head_is_tied_to_the_encoders_embeddings(tiny_host, tmp_path):
    from transformers import AutoModel

    bare = tmp_path / "bare"
    shutil.copytree(tiny_host("bert"), bare)
    AutoModel.from_pretrained(bare, add_pooling_layer=False).save_pretrained(bare)
    start = continued(str(bare), seed=0)
    assert start.model.get_output_embeddings().weight is start.saved.get_input_embeddings().weight


def test_weights_of_half_precision_are_trained_and_saved_in_float32(tiny_host, text, tmp_path):
    from transformers import AutoModelForCausalLM

    half = tmp_path / "half"
    shutil.copytree(tiny_host("llama"), half)
    AutoModelForCausalLM.from_pretrained(half, dtype=torch.float16).save_pretrained(half)
    made = pretrain(tmp_path / "host", text, SETTINGS, origin=str(half))
    assert {t.dtype for t in load_file(made.folder / "model.safetensors").values()} == {
        torch.float32
    }


# Taught


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_new_encoder_learns_its_teachers_states_with_its_tokenizer(
    family, tiny_host, text, tmp_path
):
    teacher = tiny_host(family)
    sizes = Sizes(width=24, layers=1, heads=2, ffn=48)
    one, same = (
        pretrain(tmp_path / name, text, SETTINGS, family=family, teacher=str(teacher), sizes=sizes)
        for name in ("one", "same")
    )
    assert one.losses == same.losses
    assert sum(one.losses[-5:]) < 0.9 * sum(one.losses[:5])
    mark = {"name": str(teacher), "fingerprint": fingerprint(teacher)}
    assert (one.record["from"], one.record["teacher"]) == (None, mark)
    made = load_host(str(one.folder))
    assert (made.geometry.width, made.geometry.kind) == (24, "encoder")
    assert made.tokenizer.get_vocab() == load_host(str(teacher)).tokenizer.get_vocab()
    assert not [name for name in tensor_names(one.folder) if "teacher" in name or "map" in name]


def test_the_loss_of_a_taught_encoder_is_the_share_of_variance_that_it_misses(tiny_host):
    teacher = load_host(str(tiny_host("bert"))).model.base_model
    taught = Taught(teacher, teacher)
    torch.nn.init.zeros_(taught.map.weight)
    torch.nn.init.zeros_(taught.map.bias)
    batch = TeacherStates(0, 1, 2).batch([np.arange(5, 9), np.arange(5, 12)], None)
    assert batch["attention_mask"].sum(1).tolist() == [6, 9]
    assert taught(**batch).item() == pytest.approx(1, abs=1e-3)


# Bad input


def without_sentinels(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    for path in to.glob("*.json"):
        path.write_text(path.read_text().replace("<extra_id_", "<other_"))
    return to


LENT = ("HOST", "NO SENTINELS")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either a family, for a new host, or a host to continue"),
        ({"family": "t5", "origin": "HOST"}, "either a family, for a new host, or a host to"),
        ({"family": "berd"}, "no new host can be made of family 'berd'. Did you mean 'bert'"),
        ({"origin": "HOST", "sizes": SIZES}, "has its sizes and its tokenizer"),
        ({"origin": "HOST", "cased": True}, "has its sizes and its tokenizer"),
        ({"origin": "./nowhere"}, r"host './nowhere' was not found"),
        ({"origin": "lab:smal"}, "unknown lab host 'smal'"),
        ({"family": "bert", "sizes": Sizes(vocabulary=100)}, "a vocabulary of 100 is too small"),
        ({"family": "bert", "sizes": Sizes(positions=20)}, "give a length of 18 or less"),
        ({"origin": "NO SENTINELS"}, "has no sentinels"),
        ({"family": "t5", "teacher": "HOST"}, "of kind encoder, and the new host is of family t5"),
        ({"origin": "HOST", "teacher": "HOST"}, "an encoder that teaches a new encoder"),
        ({"family": "bert", "teacher": "NO SENTINELS"}, "of kind encoder-decoder"),
        ({"family": "bert", "teacher": "HOST", "cased": True}, "takes its tokenizer"),
        ({"family": "bert", "teacher": "HOST", "sizes": SIZES}, "takes its tokenizer"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(options, message, tiny_host, text, tmp_path):
    hosts = {"HOST": lambda: tiny_host("bert")}
    hosts["NO SENTINELS"] = lambda: without_sentinels(tiny_host("t5"), tmp_path / "t5" / "host")
    options = {key: str(hosts[v]()) if v in LENT else v for key, v in options.items()}
    out = tmp_path / "made"
    out.mkdir()
    with pytest.raises(BadInput, match=message):
        pretrain(out / "host", text, SETTINGS, **options)
    assert not list(out.iterdir())


@pytest.mark.parametrize("family", ["distilbert", "electra", "albert", "granite", "opt"])
def test_hosts_of_further_families_are_continued(family, text, tiny_host, tmp_path):
    origin = str(tiny_host(family))
    made = pretrain(tmp_path / "on", text, SETTINGS, origin=origin)
    assert sum(made.losses[-5:]) < sum(made.losses[:5])
    assert load_host(str(tmp_path / "on")).geometry == load_host(origin).geometry


def test_a_host_of_no_known_model_is_refused(text, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "lama"}')
    with pytest.raises(BadInput, match="no model of type 'lama'"):
        pretrain(tmp_path / "made", text, SETTINGS, origin=str(tmp_path))


def test_an_existing_folder_is_refused_before_the_text_is_read(tmp_path):
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "mine").touch()
    with pytest.raises(BadInput, match="exists already"):
        pretrain(tmp_path / "host", tmp_path / "nothing.txt", SETTINGS, family="t5")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: Settings(steps=0), "steps is 0; it must be at least 1"),
        (lambda: Settings(steps=1, length=0), "length is 0"),
        (lambda: Settings(steps=1, seed=-1), "seed is -1"),
        (lambda: Settings(steps=1, learning_rate=0.0), r"learning rate is 0\.0"),
        (lambda: Sizes(layers=0), "layers is 0"),
        (lambda: Sizes(width=30, heads=4), "a width of 30 does not give 4 heads"),
    ],
)
def test_settings_that_make_no_host_are_refused(made, message):
    with pytest.raises(BadInput, match=message):
        made()


def test_losses_are_told_in_about_twenty_windows():
    assert windows([3.0]) == [[1, 3.0]]
    found = windows([float(i) for i in range(45)])
    assert found[:2] == [[2, 0.5], [4, 2.5]]
    assert found[-1][0] == 45
