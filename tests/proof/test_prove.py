"""`verify` passes every good folder and finds each way in which one can be wrong."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import peftport as pp
from families import FAMILIES, KINDS
from modules.formats.modules import CONFIG, PEFT, change, made, read_apart, respell
from modules.formats.test_saved_by_others import from_stock
from peftport.errors import BadInput
from peftport.modules import formats
from peftport.proof import with_adapters
from ready_python import ReadyPython
from tiny_runs import CASES, host_in

IMPORTED = ("adapters.wrappers", "adapters.models.auto", "transformers.models.auto.modeling_auto")
OF_PEFT = ("lora", "rslora", "prefix")
GOOD = [
    (family, case, head)
    for family in FAMILIES
    for case in OF_PEFT
    for head in (("mean", "first", None) if KINDS[family] == "encoder" else (None,))
]

GOOD += [(family, "lora", "last") for family in FAMILIES if KINDS[family] == "decoder"]


def written(
    tiny_host, folder: Path, family: str, case: str, head: str | None = None, format: str = "peft"
) -> Any:
    """A folder with a drawn module."""
    options: dict[str, Any] = {}
    if KINDS[family] == "encoder-decoder" and case == "prefix":
        options = {"attentions": ("decoder.self",)}  # peft puts prefixes there alone
    host = host_in(tiny_host(family))
    module = made(host, case, head or "mean", 2 if head else 0, **options)
    formats.save(module, folder, format)
    return module


@pytest.mark.parametrize(("family", "case", "head"), GOOD)
def test_a_good_folder_of_peft_s_passes(family, case, head, tiny_host, tmp_path):
    written(tiny_host, tmp_path / "m", family, case, head)
    found = pp.verify(tmp_path / "m", tiny_host(family))
    assert found.problems == ()
    assert (found.passed, found.equal) == (True, True)
    assert found.loaded_by.startswith("peft 0.")
    assert found.apart <= 1e-5
    if KINDS[family] != "encoder" or head:
        assert found.nats > 1e-6
        told = f"divergence {found.nats:.3g} nats on average, a logit by up to {found.moved:.3g}"
        assert told in str(found)
        assert told in found.short()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", ["t5", "bert", "llama"])
def test_a_good_folder_of_our_own_passes(family, case, tiny_host, tmp_path):
    written(tiny_host, tmp_path / "m", family, case, format="peftport")
    found = pp.verify(tmp_path / "m", tiny_host(family))
    assert (found.passed, found.servers, found.equal) == (True, (), None)


def test_a_good_folder_passes_in_bf16(tiny_host, tmp_path):
    written(tiny_host, tmp_path / "m", "llama", "lora")
    found = pp.verify(tmp_path / "m", tiny_host("llama"), precision="bf16")
    assert found.passed
    assert 1e-5 < found.apart < found.tolerance


@pytest.fixture
def lora(tiny_host, tmp_path) -> Path:
    written(tiny_host, tmp_path / "m", "llama", "lora")
    return tmp_path / "m"


def verified(lora: Path, tiny_host, call) -> tuple[int, dict[str, Any]]:
    """Exit code and answer of the command."""
    code, text, error = call("verify", lora, "--host", tiny_host("llama"), "--json")
    assert text, error
    return code, json.loads(text)


def test_a_no_op_is_found(lora, tiny_host, call):
    tensors = read_apart(lora / PEFT)
    respell(lora / PEFT, {n: t * 0 for n, t in tensors.items() if ".lora_B." in n})
    code, found = verified(lora, tiny_host, call)
    assert (code, found["acts"], found["nats"]) == (1, False, 0.0)
    _, text, _ = call("verify", lora, "--host", tiny_host("llama"))
    assert "it does NOTHING" in text


def test_answers_that_are_not_finite_are_told_and_no_effect_is_denied(lora, tiny_host, call):
    tensors = read_apart(lora / PEFT)
    respell(lora / PEFT, {name: tensor * 1e30 for name, tensor in tensors.items()})

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    code, text, _ = call("verify", lora, "--host", tiny_host("llama"), "--json")
    found = json.loads(text, parse_constant=refuse)
    assert (code, found["passed"], found["acts"], found["moved"]) == (1, False, True, None)
    assert len([each for each in found["problems"] if "not finite" in each]) == 2
    _, text, _ = call("verify", lora, "--host", tiny_host("llama"))
    assert "it makes the answers numbers that are not finite" in text
    assert "NOTHING" not in text


def test_of_a_module_for_another_host_no_effect_is_told(lora, tiny_host, call):
    code, text, _ = call("verify", lora, "--host", tiny_host("gpt2"))
    assert code == 1
    assert "nothing is known of what it does" in text
    assert "NOTHING" not in text


def test_a_wrong_prefix_is_found(lora, tiny_host, call):
    tensors = read_apart(lora / PEFT)
    wrong = {
        n.replace("base_model.model.model.", "base_model.model."): t for n, t in tensors.items()
    }
    respell(lora / PEFT, {**dict.fromkeys(tensors), **wrong})
    code, found = verified(lora, tiny_host, call)
    assert (code, found["acts"]) == (1, False)
    assert any("does not load 'base_model.model.layers.0." in each for each in found["problems"])
    assert any("does not find 'base_model.model.model." in each for each in found["problems"])


def test_a_lost_scale_is_found(lora, tiny_host, call):
    change(lora, lora_alpha=2)
    code, found = verified(lora, tiny_host, call)
    assert (code, found["acts"]) == (1, True)
    assert found["problems"] == ["its scale is 0.5 and was 2 when peftport wrote the folder"]


def test_a_scale_that_nobody_says_is_found(lora, tiny_host, call):
    config = json.loads((lora / CONFIG).read_text())
    del config["lora_alpha"]
    (lora / CONFIG).write_text(json.dumps(config))
    code, found = verified(lora, tiny_host, call)
    assert code == 1
    assert any("peftport does not read it" in each for each in found["problems"])


def test_a_saved_embedding_is_found_and_servers_would_not_take_it(lora, tiny_host, call):
    host = host_in(tiny_host("llama")).model
    table = host.get_input_embeddings().weight.detach().clone()
    respell(lora / PEFT, {"base_model.model.model.embed_tokens.weight": table})
    _, found = verified(lora, tiny_host, call)
    vllm, sglang = found["servers"]
    assert (vllm["taken"], sglang["taken"]) == (False, False)
    assert "embed_tokens.weight': only factors" in vllm["problems"][0]


def test_why_the_library_does_not_load_a_grown_vocabulary_is_told(tiny_host, tmp_path, call):
    from_stock(tiny_host("llama"), tmp_path / "m", grown=5, modules_to_save=["embed_tokens"])
    _, found = verified(tmp_path / "m", tiny_host, call)
    assert any("size mismatch for base_model.model" in each for each in found["problems"])


def test_a_folder_that_the_library_does_not_load_is_found(lora, tiny_host, call):
    tensors = read_apart(lora / PEFT)
    first = next(iter(tensors))
    respell(lora / PEFT, {first: torch.zeros(2, 2)})
    code, found = verified(lora, tiny_host, call)
    assert (code, found["acts"]) == (1, False)
    assert any("peft cannot load it" in each for each in found["problems"])


def test_another_module_than_the_one_written_is_found(lora, tiny_host):
    """What a port compares its folder with is the module that it wrote."""
    handle = pp.load_module(lora)
    twice = {name: tensor * 2 for name, tensor in handle.tensors.items()}
    expected = type(handle.module)(handle.record, twice)
    handle = pp.ModuleHandle(lora, made=expected)
    found = pp.verify(handle, tiny_host("llama"))
    assert found.equal is False
    assert "answers otherwise than peftport" in found.problems[0]


def test_without_peft_it_says_so_and_still_says_whether_the_module_acts(
    lora, tiny_host, monkeypatch
):
    monkeypatch.setattr("peftport.proof.with_peft.distribution", lambda: None)
    found = pp.verify(lora, tiny_host("llama"))
    assert (found.loaded_by, found.acts, found.equal, found.passed) == (None, True, None, True)
    assert "pip install 'peftport[peft]'" in found.notes[0]


def test_without_adapters_it_says_so(tiny_host, tmp_path, monkeypatch):
    monkeypatch.setenv(with_adapters.VARIABLE, str(tmp_path / "nowhere"))
    written(tiny_host, tmp_path / "m", "llama", "houlsby", format="adapterhub")
    found = pp.verify(tmp_path / "m", tiny_host("llama"))
    assert (found.loaded_by, found.acts, found.equal) == (None, True, None)
    assert with_adapters.VARIABLE in found.notes[0]


@pytest.mark.parametrize(
    ("family", "case", "head"),
    [
        *(("t5", case, None) for case in ("houlsby", "compacter", "lora")),
        *(("bert", case, head) for case in ("pfeiffer", "lora") for head in ("mean", "first")),
        ("roberta", "houlsby", None),
        ("gpt2", "lora", None),
        ("llama", "compacter", None),
    ],
)
def test_a_good_folder_of_adapters_passes(
    family, case, head, tiny_host, tmp_path, adapters_at_hand, monkeypatch
):
    monkeypatch.setenv(with_adapters.VARIABLE, str(adapters_at_hand))
    passes_in_adapters(family, case, head, tiny_host, tmp_path)


def test_a_good_folder_of_adapters_passes_in_a_process_of_its_own(tiny_host, tmp_path):
    require_adapters()
    passes_in_adapters("bert", "houlsby", "mean", tiny_host, tmp_path)


def require_adapters() -> Path:
    found = with_adapters.python()
    if found is None:
        pytest.skip("adapters is not at hand: `make adapters`")
    return found


@pytest.fixture(scope="module")
def adapters_at_hand() -> Iterator[Path]:
    """A Python that has imported adapters already."""
    with ReadyPython(require_adapters(), *IMPORTED) as ready:
        yield ready.path


def passes_in_adapters(family: str, case: str, head: str | None, tiny_host, tmp_path) -> None:
    written(tiny_host, tmp_path / "m", family, case, head, format="adapterhub")
    found = pp.verify(tmp_path / "m", tiny_host(family))
    assert found.problems == ()
    assert (found.passed, found.equal) == (True, True)
    assert found.loaded_by.startswith("adapters ")


def test_a_module_without_a_folder_cannot_be_verified(lora, tiny_host):
    module = pp.load_module(lora).module
    with pytest.raises(BadInput, match="save it"):
        pp.verify(module, tiny_host("llama"))


def test_a_port_ends_with_what_the_folder_does(lora, tiny_continuation, call, tmp_path):
    asked = ("port", lora, "--host", tiny_continuation("llama"), "--out", tmp_path / "out")
    code, text, error = call(*asked)
    assert code == 0, error
    last = text.splitlines()[-1]
    assert last.startswith("verified with peft ")
    assert "equal to what peftport computes" in last
    assert "vLLM would take it, SGLang would take it" in last


def test_a_port_can_do_without(lora, tiny_continuation, call, tmp_path):
    asked = ("port", lora, "--host", tiny_continuation("llama"), "--out", tmp_path / "out")
    code, text, _ = call(*asked, "--no-verify", "--json")
    assert code == 0
    assert json.loads(text)["verified"] is None


def test_a_large_host_is_left_to_those_who_ask(
    lora, tiny_continuation, call, tmp_path, monkeypatch
):
    monkeypatch.setattr("peftport.api.verify.LARGE", 0)
    asked = ("port", lora, "--host", tiny_continuation("llama"), "--out", tmp_path / "out")
    code, text, error = call(*asked)
    assert code == 0, error
    (told,) = re.findall(r"not verified: the host is large; see `peftport (.*)`", text)
    assert call(*shlex.split(told))[0] == 0


def test_a_folder_that_is_named_as_on_the_hub_is_verified_where_it_was_fetched_to(
    tiny_host, tmp_path, call, monkeypatch
):
    written(tiny_host, tmp_path / "m", "llama", "lora")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path / "m"))
    code, text, error = call("verify", "some/module", "--host", tiny_host("llama"), "--json")
    assert code == 0, error
    assert json.loads(text)["module"] == str(tmp_path / "m")


@pytest.mark.parametrize(
    ("more", "said"),
    [({"texts": []}, "no texts are given"), ({"text_count": 0}, "--text-count 0: expected 1")],
)
def test_no_texts_are_not_taken_for_the_usual_ones(more, said, tiny_host, tmp_path):
    written(tiny_host, tmp_path / "m", "llama", "lora")
    with pytest.raises(BadInput, match=said):
        pp.verify(tmp_path / "m", tiny_host("llama"), **{"texts": ["a film"], **more})
