"""A host writes what repeated passes over the whole text would write, token by token."""

from __future__ import annotations

import copy
from collections import Counter
from functools import cache

import pytest
import torch
from torch import nn

from families import ALL_KINDS
from peftport.errors import BadInput
from peftport.hosts import load_host
from peftport.kinds.writing import Writing, ends_of, write
from peftport.techniques import technique
from peftport.techniques.base import stack_lanes
from techniques.references import drawn, target_logits
from tiny_runs import CASES, host_in
from tiny_tokenizers import build_tokenizer

FAMILIES = (
    *("gpt2", "llama", "qwen3", "gemma3_text", "gemma2", "mistral", "bloom", "opt"),
    *("t5", "t5-v1.0", "bart"),
)
LENGTHS = (3, 21, 1, 8, 14, 3)
MOST = 10


def prompts_of(host, lengths=LENGTHS, seed=0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(5, 90, (n,), generator=generator).tolist() for n in lengths]


def module_of(case: str, host, seeds=(0, 1)):
    """A technique, its configuration and drawn parameters, one lane a seed."""
    name, options = CASES[case]
    made = technique(name)
    config = made.configure(options)
    shapes = made.shapes(config, host.geometry)
    return made, config, stack_lanes([drawn(shapes, seed) for seed in seeds])


@cache
def untied(folder):
    """A host whose answers hang on all that it reads: one with tied weights says the last token
    again and again."""
    host = load_host(str(folder))
    head = host.model.get_output_embeddings()
    generator = torch.Generator().manual_seed(3)
    head.weight = nn.Parameter(torch.randn(head.weight.shape, generator=generator))
    return host


@torch.no_grad()
def written_alone(host, prompt: list[int], how: Writing) -> list[int]:
    """One answer, by a pass over the whole text for each token: no cache, no padding."""
    ids, said = torch.tensor([prompt]), []
    for _ in range(how.most):
        if host.geometry.kind == "encoder-decoder":
            labels = torch.tensor([[*said, 0]])
            logits = target_logits(host, ids, torch.ones_like(ids), labels)[-1]
        else:
            whole = torch.tensor([[*prompt, *said]])
            logits = host.next_token_logits(whole, torch.ones_like(whole))[0]
        token = int(logits.argmax())
        if token in how.ends:
            break
        said.append(token)
    return said


@pytest.mark.parametrize("case", ["lora", "houlsby", "prefix"])
@pytest.mark.parametrize("family", FAMILIES)
def test_many_answers_at_a_time_are_those_of_repeated_passes(family, case, tiny_host):
    """Prompts of unlike length under two modules; some are longer than a sliding window."""
    host = untied(tiny_host(family))
    if CASES[case][0] in host.geometry.refuses:
        pytest.skip(f"{family} hosts take no {case}")
    made, config, lanes = module_of(case, host)
    prompts = prompts_of(host)
    how = Writing(MOST, ())
    with made.attach(host, config, lanes):
        found = write(host, prompts, 2, how)
    for lane in range(2):
        alone = {name: tensor[lane : lane + 1] for name, tensor in lanes.items()}
        with made.attach(host, config, alone):
            expected = [written_alone(host, prompt, how) for prompt in prompts]
        assert found[lane] == expected
    assert found[0] != found[1]
    assert all(len(answer) == MOST for answer in found[0])


def test_an_answer_stops_before_what_ends_it(tiny_host):
    host = host_in(tiny_host("llama"))
    prompts = prompts_of(host)
    (whole,) = write(host, prompts, 1, Writing(MOST, ()))
    end = Counter(token for answer in whole for token in answer[1:]).most_common(1)[0][0]
    (found,) = write(host, prompts, 1, Writing(MOST, (end,)))
    expected = [a[: a.index(end)] if end in a else a for a in whole]
    assert found == expected
    assert found != whole


def test_a_batch_is_small_enough_for_memory_and_changes_nothing(tiny_host, monkeypatch):
    host = host_in(tiny_host("llama"))
    prompts = prompts_of(host)
    whole = write(host, prompts, 1, Writing(MOST, ()))
    monkeypatch.setattr("peftport.kinds.writing.AT_ONCE", 1)
    assert write(host, prompts, 1, Writing(MOST, ())) == whole


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_host_s_own_settings_change_nothing(family, tiny_host):
    host = host_in(tiny_host(family))
    prompts = prompts_of(host)
    plain = write(host, prompts, 1, Writing(MOST, ()))
    before = host.model.generation_config
    own = copy.deepcopy(before)
    own.update(
        do_sample=True,
        temperature=9.0,
        num_beams=3,
        repetition_penalty=3.0,
        max_new_tokens=2,
        min_new_tokens=2,
        forced_eos_token_id=1,
        suppress_tokens=[plain[0][0][0]],
        no_repeat_ngram_size=1,
        eos_token_id=plain[0][0][0],
    )
    host.model.generation_config = own
    try:
        assert write(host, prompts, 1, Writing(MOST, ())) == plain
        assert host.model.generation_config is own
    finally:
        host.model.generation_config = before


def test_drawn_answers_repeat_with_their_seed_and_follow_the_hosts_probabilities(tiny_host):
    """No share of the vocabulary is left out, which transformers' usual settings would do."""
    host = host_in(tiny_host("llama"))
    (prompt,) = prompts_of(host, (5,))
    state = torch.random.get_rng_state()

    def said(seed: int, temperature: float) -> list[int]:
        how = Writing(1, (), temperature, seed)
        (lane,) = write(host, [prompt] * 400, 1, how)
        return [answer[0] for answer in lane]

    assert said(1, 1.0) == said(1, 1.0)
    assert said(1, 1.0) != said(2, 1.0)
    assert torch.equal(torch.random.get_rng_state(), state)
    hot = [token for seed in range(5) for token in said(seed, 50.0)]
    assert len(set(hot)) > 0.8 * min(len(hot), host.geometry.vocabulary)
    logits = host.next_token_logits(torch.tensor([prompt]), torch.ones(1, 5).long())[0]
    shares = (logits / 2).softmax(-1)
    drawn_ones = [token for seed in range(10) for token in said(seed, 2.0)]
    best = int(shares.argmax())
    p = float(shares[best])
    assert abs(drawn_ones.count(best) / 4000 - p) < 5 * (p * (1 - p) / 4000) ** 0.5


def test_a_host_writes_no_further_than_its_last_position(tiny_host):
    host, (made, config, lanes) = (
        host_in(tiny_host("gpt2")),
        module_of("prefix", host_in(tiny_host("gpt2")), (0,)),
    )
    (prompt,) = prompts_of(host, (120,))
    ((found,),) = write(host, [prompt], 1, Writing(50, ()))
    assert len(found) == 9  # the last of 129 tokens is not read
    with made.attach(host, config, lanes):
        ((shorter,),) = write(host, [prompt], 1, Writing(50, ()))
        assert len(shorter) == 9 - config.length
        with pytest.raises(BadInput, match="do not fit"):
            write(host, [prompt + prompt[:4]], 1, Writing(50, ()))


def test_an_answer_ends_with_a_text_or_a_turn_but_not_with_an_unknown_token():
    llama, qwen = build_tokenizer("llama"), build_tokenizer("qwen2")
    assert ends_of(llama, [[5, 6, llama.unk_token_id], [llama.bos_token_id]]) == (2,)
    turn = qwen.convert_tokens_to_ids("<|im_end|>")
    text = qwen.convert_tokens_to_ids("<|endoftext|>")
    assert ends_of(qwen, [[9, 10, turn, 11]]) == (turn,)
    qwen.eos_token = "<|endoftext|>"
    assert ends_of(qwen, [[9, 10, 12, 13]]) == (text,)
    assert ends_of(qwen, [[9, 10, turn, 11]]) == (text, turn)


def test_the_families_are_of_both_kinds_that_write():
    assert {ALL_KINDS[family] for family in FAMILIES} == {"decoder", "encoder-decoder"}
