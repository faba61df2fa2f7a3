"""PEFT files as other savers write them: names with wrappers' parts, parts of the host, shards."""

from __future__ import annotations

import json
import warnings
from types import SimpleNamespace

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, T5EncoderModel

from modules.formats.modules import CONFIG, PEFT, change, read_apart, refused, respell, same
from peftport.errors import BadInput
from peftport.modules import formats, load_module, read_outline
from tiny_hosts import drawn_like
from tiny_runs import host_in

MODEL = "base_model.model."
FIRST = f"{MODEL}model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    "rename",
    [
        lambda n: f"_orig_mod.{n}",
        lambda n: f"module.{n}",
        lambda n: f"module._orig_mod.{n}",
        lambda n: f"_forward_module.module.{n}",
        lambda n: f"model.{n}",
        lambda n: f"pretrained_model.{n}",
        lambda n: n.replace(".weight", ".default.weight"),
        lambda n: n.replace(".weight", ".mine.weight"),
        lambda n: n.replace(f"{MODEL}model.", f"{MODEL}model.language_model."),
        lambda n: n.replace(f"{MODEL}model.", f"{MODEL}language_model.model."),
        lambda n: n.removeprefix(MODEL),
        lambda n: n.removeprefix(f"{MODEL}model."),
        lambda n: f"{MODEL}{n}",
        lambda n: n.replace(".self_attn.", "._fsdp_wrapped_module.self_attn."),
        lambda n: n.replace(".self_attn.", "._checkpoint_wrapped_module.self_attn."),
        lambda n: n.replace(MODEL, f"{MODEL}_orig_mod."),
        lambda n: n.replace(MODEL, f"{MODEL}module."),
    ],
)
def test_parts_that_wrappers_add_to_names_are_taken_off_with_a_notice(rename, written, caplog):
    caplog.set_level("INFO", "peftport")
    folder = written("peft", "llama", "lora")
    before = load_module(folder)
    tensors = read_apart(folder / PEFT)
    save_file({rename(name): tensor for name, tensor in tensors.items()}, folder / PEFT)
    caplog.clear()
    assert same(load_module(folder), before)
    assert "notice: " in caplog.text
    assert "names" in caplog.text


def test_names_that_fit_nothing_are_told_beside_what_was_expected(written):
    folder = written("peft", "llama", "lora")
    tensors = {f"x.y.{n}": t for n, t in read_apart(folder / PEFT).items()}
    tensors = {n.replace("self_attn", "attention"): t for n, t in tensors.items()}
    save_file(tensors, folder / PEFT)
    refused(folder, rf"begins with 'x\.y\.base_model.*expected are names such as {FIRST}")


def test_what_was_expected_is_told_beside_the_first_factor_that_is_there(written):
    folder = written("peft", "llama", "lora")
    tensors = {n.replace("self_attn", "attention"): t for n, t in read_apart(folder / PEFT).items()}
    save_file({"a_head.weight": torch.ones(1)} | tensors, folder / PEFT)
    refused(folder, "begins with 'a_head.weight', has 'base_model.*lora_A.weight', expected are")


def test_a_file_of_two_adapters_is_refused_by_their_names(written):
    folder = written("peft", "llama", "lora")
    tensors = read_apart(folder / PEFT)
    both = {
        name.replace(".weight", f".{adapter}.weight"): tensor.clone()
        for name, tensor in tensors.items()
        for adapter in ("one", "two")
    }
    save_file(both, folder / PEFT)
    refused(folder, "holds 2 adapters, one, two: save the one that is meant alone")


def from_stock(folder, into, auto=AutoModelForCausalLM, grown=0, **options):
    """Save a module of peft's with drawn factors and parts of the host."""
    model = auto.from_pretrained(folder)
    if grown:
        model.resize_token_embeddings(model.config.vocab_size + grown, mean_resizing=False)
    options = {"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, **options}
    torch.manual_seed(0)  # peft draws the first factors
    made = peft.get_peft_model(model, peft.LoraConfig(**options))
    with torch.no_grad():
        for name, value in made.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                value.add_(drawn_like(value, name))
    save_quietly(made, into)
    return made.eval()


def save_quietly(made, into):
    """Save a peft model, which tells that it saves embeddings by itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        made.save_pretrained(str(into))


def test_a_rank_that_the_file_leaves_out_is_the_one_that_peft_takes(tiny_host, tmp_path):
    """The factors hold it to that; nothing does so for a scale, which is asked for."""
    from_stock(tiny_host("llama"), tmp_path / "theirs", r=8, lora_alpha=8)
    whole = load_module(tmp_path / "theirs")
    path = tmp_path / "theirs" / "adapter_config.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in said.items() if k != "r"}))
    found = load_module(tmp_path / "theirs")
    assert found.config == whole.config
    usual = peft.PeftConfig.from_pretrained(str(tmp_path / "theirs"))
    assert found.config.rank == usual.r == 8
    path.write_text(json.dumps({k: v for k, v in said.items() if k != "lora_alpha"}))
    with pytest.raises(BadInput, match="lora_alpha: None, expected a positive number"):
        load_module(tmp_path / "theirs")


def test_embeddings_that_peft_saved_untrained_are_left_out_with_a_notice(
    tiny_host, tmp_path, caplog
):
    caplog.set_level("INFO", "peftport")
    from_stock(tiny_host("llama"), tmp_path / "theirs", grown=5)
    assert any("embed_tokens" in name for name in load_file(tmp_path / "theirs" / PEFT))
    module = load_module(tmp_path / "theirs")
    assert not module.record.embeddings
    assert not module.record.left_out
    assert "are not trained, as in" in caplog.text
    assert "5 rows of tokens that the host does not have" in caplog.text


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_untrained_embeddings_in_another_type_are_known(dtype, tiny_host, tmp_path):
    from_stock(tiny_host("llama"), tmp_path / "theirs", grown=5)
    path = tmp_path / "theirs" / PEFT
    save_file({name: t.to(dtype) for name, t in read_apart(path).items()}, path)
    assert not load_module(tmp_path / "theirs").record.embeddings


def test_trained_embeddings_are_read_and_told_from_shapes_too(tiny_host, tmp_path):
    from_stock(tiny_host("llama"), tmp_path / "theirs", modules_to_save=["embed_tokens", "lm_head"])
    module = load_module(tmp_path / "theirs")
    assert set(module.record.embeddings) == {"embedding.input.weight", "embedding.output.weight"}
    record, shapes = read_outline(tmp_path / "theirs")
    assert record.embeddings == module.record.embeddings
    assert shapes == {name: tuple(tensor.shape) for name, tensor in module.tensors.items()}
    formats.save(module, tmp_path / "again", "peft")
    assert same(load_module(tmp_path / "again"), module)


def test_other_trained_parts_are_refused_and_read_without_where_that_is_allowed(
    tiny_host, tmp_path
):
    from_stock(tiny_host("llama"), tmp_path / "theirs", modules_to_save=["norm"])
    refused(tmp_path / "theirs", "norm.weight', .*modules_to_save.*--allow-partial")
    left_out = load_module(tmp_path / "theirs", partial=True).record.left_out
    assert left_out["model.norm.weight"] == (32,)
    assert len(left_out) == 5


def test_a_decoder_s_head_is_read_and_written_as_it_is(tiny_host, tmp_path):
    host = str(tiny_host("llama"))
    auto = AutoModelForSequenceClassification
    from_stock(host, tmp_path / "theirs", auto, task_type="SEQ_CLS")
    module = load_module(tmp_path / "theirs")
    assert (module.record.head, module.classes) == ("last", 2)
    formats.save(module, tmp_path / "again", "peft")
    theirs, ours = (load_file(tmp_path / each / PEFT) for each in ("theirs", "again"))
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in theirs.items())


def test_an_encoder_s_head_that_cannot_be_read_is_left_out_when_that_is_allowed(
    tiny_host, tmp_path
):
    auto = AutoModelForSequenceClassification
    options = {"task_type": "SEQ_CLS", "target_modules": ["query"]}
    from_stock(tiny_host("bert"), tmp_path / "theirs", auto, **options)
    told = "the module's head stands on the pooler of .*, which has none"
    refused(tmp_path / "theirs", f"{told}.*--allow-partial.*without its head .classifier")
    module = load_module(tmp_path / "theirs", partial=True)
    assert all("classifier" in name for name in module.record.left_out)
    assert not any(name.startswith("head.") for name in module.tensors)
    record, shapes = read_outline(tmp_path / "theirs", partial=True)
    assert record.left_out == module.record.left_out
    assert shapes.keys() == module.tensors.keys()


def test_a_head_that_peft_saved_twice_over_is_read_once(tiny_host, tmp_path):
    """With `bias="all"` peft writes the head's biases by two names."""
    options = {"task_type": "SEQ_CLS", "target_modules": ["query"], "bias": "all"}
    host = tiny_host("roberta")
    from_stock(host, tmp_path / "theirs", AutoModelForSequenceClassification, **options)
    assert any("modules_to_save.default" in name for name in load_file(tmp_path / "theirs" / PEFT))
    module = load_module(tmp_path / "theirs")
    assert (module.record.head, module.classes) == ("first", 2)


def test_a_value_head_is_left_out_when_that_is_allowed(written):
    folder = written("peft", "llama", "lora")
    respell(folder / PEFT, {"v_head.summary.weight": torch.ones(1, 32)})
    refused(folder, "'v_head.summary.weight' belongs to no place .*--allow-partial")
    left_out = load_module(folder, partial=True).record.left_out
    assert left_out == {"v_head.summary.weight": (1, 32)}


def test_a_bias_is_refused_only_where_it_was_trained(written):
    folder = written("peft", "llama", "lora")
    change(folder, bias="lora_only")
    assert load_module(folder).technique == "lora"
    respell(folder / PEFT, {f"{MODEL}model.layers.0.self_attn.q_proj.bias": torch.ones(32)})
    refused(folder, "q_proj.bias' belongs to no place .* a trained bias")


def test_magnitudes_of_dora_are_never_left_out(written):
    folder = written("peft", "llama", "lora")
    name = FIRST.replace("lora_A.weight", "lora_magnitude_vector")
    respell(folder / PEFT, {name: torch.ones(32)})
    refused(folder, "lora_magnitude_vector' belongs to a variant of LoRA", partial=True)


@pytest.mark.parametrize(
    "pattern",
    [
        r"model\.layers\.[01]\.self_attn\.q_proj",
        r".*\.(q_proj|k_proj)",
        r"layers\.\d+\.self_attn\.q_proj",
        "^model.layers.*q_proj",
    ],
)
def test_patterns_may_be_expressions(pattern, tiny_host, tmp_path):
    made = from_stock(
        tiny_host("llama"),
        tmp_path / "theirs",
        target_modules=["q_proj", "v_proj"],
        rank_pattern={pattern: 6},
        alpha_pattern={pattern: 3},
    )
    module = load_module(tmp_path / "theirs")
    layer = made.base_model.model.model.layers[1].self_attn
    point = {"q_proj": "decoder.1.self.q", "v_proj": "decoder.1.self.v"}
    for name, place in point.items():
        theirs = getattr(layer, name).get_delta_weight("default")
        up, down = (module.tensors[f"{place}.lora_{factor}"] for factor in "BA")
        torch.testing.assert_close(module.config.scale * up @ down, theirs)


def test_an_expression_that_takes_too_long_is_refused(written, monkeypatch):
    def late(*_args, **_options):
        raise TimeoutError

    folder = written("peft", "llama", "lora")
    change(folder, alpha_pattern={r"(\w|\.)*x": 3})
    monkeypatch.setattr("peftport.techniques.lora.patterns.regex.match", late)
    refused(folder, "alpha_pattern: the pattern .* cannot be matched .it takes too long")


def test_a_sharded_module_is_read(written):
    folder = written("peft", "llama", "lora")
    before, tensors = load_module(folder), read_apart(folder / PEFT)
    (folder / PEFT).unlink()
    names = sorted(tensors)
    files = {n: f"adapter_model-0000{1 + i % 2}-of-00002.safetensors" for i, n in enumerate(names)}
    for file in set(files.values()):
        save_file({n: tensors[n] for n in names if files[n] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    assert same(load_module(folder), before)
    (folder / sorted(set(files.values()))[1]).unlink()
    refused(folder, "adapter_model-00002-of-00002.safetensors does not exist")


def test_t5_s_encoder_alone_is_read_with_a_decoder_that_changes_nothing(tiny_host, tmp_path):
    from_stock(
        tiny_host("t5"),
        tmp_path / "theirs",
        T5EncoderModel,
        task_type="FEATURE_EXTRACTION",
        target_modules=["q", "v"],
    )
    module = load_module(tmp_path / "theirs")
    changed = {name.split(".")[0] for name, t in module.tensors.items() if t.any()}
    assert changed == {"encoder"}


def test_a_key_of_a_newer_peft_is_read_at_a_value_without_effect_and_else_named(written):
    folder = written("peft", "llama", "lora")
    change(folder, qalora_group_size=32, megatron_core="megatron.core", tomorrow=None, other=[])
    assert load_module(folder).technique == "lora"
    change(folder, tomorrow="auto", peft_version="0.31.0")
    refused(folder, f"{CONFIG}: tomorrow: 'auto'.*written by peft 0.31.0.*take the key out")


def test_a_decoder_with_a_head_of_ours_answers_as_transformers_does(tiny_host, tmp_path):
    from peftport.techniques import technique
    from peftport.techniques.base import stack_lanes
    from peftport.training.readout import ClassReadout, class_logits

    theirs = from_stock(
        str(tiny_host("llama")),
        tmp_path / "theirs",
        AutoModelForSequenceClassification,
        task_type="SEQ_CLS",
    )
    host, module = host_in(tiny_host("llama")), load_module(tmp_path / "theirs")
    lane = stack_lanes([module.tensors])
    for text in ("good day", "a bad film"):
        ids = torch.tensor([host.tokenizer(text)["input_ids"]])
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        with torch.no_grad(), technique("lora").attach(host, module.config, lane):
            ours = class_logits(host, SimpleNamespace(**inputs), lane, ClassReadout(2, None))
            wanted = theirs(**inputs).logits
        torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=0)


def test_factors_that_tying_adds_are_read_with_those_that_are_named(tiny_host, tmp_path):
    """With `ensure_weight_tying` peft gives the tied output factors that no list names."""
    host = tiny_host("qwen2")
    targets = ["q_proj", "embed_tokens"]
    from_stock(host, tmp_path / "theirs", target_modules=targets, ensure_weight_tying=True)
    module = load_module(tmp_path / "theirs")
    assert {"embedding.output.lora_A", "embedding.input.lora_A"} <= module.tensors.keys()
    change(tmp_path / "theirs", ensure_weight_tying=False)
    refused(tmp_path / "theirs", "'lm_head.lora_A' too much")
