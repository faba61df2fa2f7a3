"""A host that has no embedding for a token says so, before an index is out of range."""

from __future__ import annotations

import json
import shutil

import pytest

from peftport.errors import BadInput
from peftport.hosts import load_host
from peftport.hosts.host import load_tokenizer
from peftport.hosts.streaming import stream_host
from peftport.hosts.vocabulary import tokenizer_mark
from peftport.techniques.embeddings import replaced
from techniques.references import drawn
from tiny_runs import host_in


def with_token(host, folder, number: int, added: bool, pad: bool = False):
    """A host's folder whose tokenizer has one token more."""
    shutil.copytree(host, folder)
    made = json.loads((folder / "tokenizer.json").read_text())
    if added:
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        made["added_tokens"].append({"id": number, "content": "<new>", "special": True, **flags})
    else:
        made["model"]["vocab"]["<new>"] = number
    (folder / "tokenizer.json").write_text(json.dumps(made))
    if pad:
        told = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps(told | {"pad_token": "<new>"}))
    return folder


OPENED = (load_host, stream_host)


@pytest.mark.parametrize("opened", OPENED)
def test_a_vocabulary_beyond_the_embeddings_is_refused(opened, tiny_host, tmp_path):
    folder = with_token(tiny_host("llama"), tmp_path / "host", 10**6, added=False)
    with pytest.raises(BadInput, match=r"'<new>' \(1000000\) among them\. Take the tokenizer"):
        opened(str(folder))


@pytest.mark.parametrize("opened", OPENED)
def test_an_added_token_without_an_embedding_is_refused_where_a_text_has_it(
    opened, tiny_host, tmp_path
):
    rows = load_host(str(tiny_host("llama"))).geometry.vocabulary
    folder = with_token(tiny_host("llama"), tmp_path / "host", rows, added=True)
    host = opened(str(folder))
    good, bad = (host.tokenizer(text, return_tensors="pt") for text in ("a film", "a <new> film"))
    host.next_token_logits(good["input_ids"], good["attention_mask"])
    with pytest.raises(BadInput, match=r"\('<new>'\), and a text has one of them"):
        host.next_token_logits(bad["input_ids"], bad["attention_mask"])


@pytest.mark.parametrize("opened", OPENED)
def test_an_added_token_is_read_where_a_module_brings_its_embedding(opened, tiny_host, tmp_path):
    rows, width = load_host(str(tiny_host("llama"))).model.get_input_embeddings().weight.shape
    folder = with_token(tiny_host("llama"), tmp_path / "host", rows, added=True)
    host = opened(str(folder))
    read = host.tokenizer("a <new> film", return_tensors="pt")
    brought = drawn({"embedding.input.weight": (rows + 1, width)})
    with replaced(host, None, brought):
        found = host.next_token_logits(read["input_ids"], read["attention_mask"])
    assert found.isfinite().all()


def test_padding_is_another_token_where_it_has_no_embedding(tiny_host, tmp_path):
    """As of hosts to whose tokenizer padding was added, and to which it was not."""
    rows = load_host(str(tiny_host("llama"))).geometry.vocabulary
    folder = with_token(tiny_host("llama"), tmp_path / "host", rows, added=True, pad=True)
    host = load_host(str(folder))
    assert host.tokenizer.pad_token_id < rows
    read = host.tokenizer(["a film", "a film that is long"], padding=True, return_tensors="pt")
    assert host.next_token_logits(read["input_ids"], read["attention_mask"]).isfinite().all()


def test_a_tokenizer_is_named_by_what_it_does(tiny_host, tmp_path):
    host = load_host(str(tiny_host("llama")))
    mark = tokenizer_mark(host.tokenizer)
    host.tokenizer.save_pretrained(tmp_path / "again")
    assert tokenizer_mark(load_tokenizer(tmp_path / "again", "again")) == mark
    others = {tokenizer_mark(host_in(tiny_host(family)).tokenizer) for family in ("t5", "gpt2")}
    assert len({mark, *others}) == 3
    made = json.loads((tmp_path / "again" / "tokenizer.json").read_text())
    made["normalizer"] = {"type": "Lowercase"}
    (tmp_path / "again" / "tokenizer.json").write_text(json.dumps(made))
    assert tokenizer_mark(load_tokenizer(tmp_path / "again", "again")) != mark


def test_a_module_says_by_which_tokenizer_it_was_made(call, tiny_host, tiny_task, tmp_path):
    host = tmp_path / "host"
    shutil.copytree(tiny_host("llama"), host)
    task = ("--task", tiny_task, "--label-words", "bad,good")
    asked = ("train", "--technique", "lora", "--host", host, *task, "--steps", 1)
    code, _, error = call(*asked, "--out", tmp_path / "m")
    assert code == 0, error
    tested = ("test", tmp_path / "m", "--host", host, *task)
    assert "another tokenizer" not in call(*tested)[2]
    made = json.loads((host / "tokenizer.json").read_text())
    made["normalizer"] = {"type": "Lowercase"}
    (host / "tokenizer.json").write_text(json.dumps(made))
    code, _, error = call(*tested)
    assert code == 0
    assert "was made with another tokenizer than the one of" in error
    texts = ("--texts", tiny_task, "--text-count", 16, "--label-words", "bad,good")
    port = ("port", tmp_path / "m", "--host", tiny_host("gpt2"), "--method", "procrustes", *texts)
    code, _, error = call(*port, "--set", "places=64", "--no-verify", "--out", tmp_path / "ported")
    assert code == 0, error
    assert "the module was made with another tokenizer than the one of" in error


def test_a_tokenizer_whose_unknown_token_is_none_of_its_own_is_refused(tiny_host, tmp_path):
    host = tmp_path / "host"
    shutil.copytree(tiny_host("llama"), host)
    file = host / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"unk_token": ""}))
    with pytest.raises(BadInput, match="its unk_token '' is none of its own"):
        load_tokenizer(host, "mine")
