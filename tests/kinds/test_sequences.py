"""The loss of rows of text is transformers' own, and a lane's is that of its solo run."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from families import KINDS
from peftport.kinds.likelihood import Likelihood, ratio_parts
from peftport.tasks import load_task
from peftport.training import TrainingSettings, readout_of, trajectory
from techniques.references import reference_model
from tiny_runs import distance, encoded, host_in, start_of
from written_rows import choices, pairs, texts, write_splits

ROWS = {"completion": pairs, "choice": choices, "language": texts}


def task_of(kind: str, folder):
    return load_task(str(write_splits(folder, ROWS[kind](), train=4)), kind=kind, max_tokens=64)


def labelled_by_hand(host, row) -> tuple[list[int], list[int]]:
    """A prompt and its answer as a trainer of transformers has them: ids, and labels of each."""
    tokenizer = host.tokenizer
    prompt = tokenizer(row["prompt"])["input_ids"]
    if host.geometry.kind == "encoder-decoder":
        return prompt, tokenizer(row["completion"])["input_ids"]
    both = tokenizer(row["prompt"] + row["completion"])["input_ids"] + [tokenizer.eos_token_id]
    assert both[: len(prompt)] == prompt
    return both, [-100] * len(prompt) + both[len(prompt) :]


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "gemma3_text", "t5"])
def test_the_loss_of_a_batch_is_transformers_own(family, tiny_host, tmp_path):
    host, rows = host_in(tiny_host(family)), np.array([5, 0, 3, 2])
    task = task_of("completion", tmp_path)
    read = encoded(host, task, "test")
    ours = readout_of(host, task).losses(host, read.batch(rows), {}, 1)
    made = [labelled_by_hand(host, pairs()[row]) for row in rows]
    pad = torch.nn.utils.rnn.pad_sequence
    ids, labels = (
        pad([torch.tensor(each[part]) for each in made], batch_first=True, padding_value=value)
        for part, value in ((0, host.tokenizer.pad_token_id), (1, -100))
    )
    mask = pad([torch.ones(len(each[0])) for each in made], batch_first=True).long()
    model = reference_model(family, tiny_host(family))
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    torch.testing.assert_close(ours[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["completion", "choice", "language"])
@pytest.mark.parametrize("family", ["llama", "t5"])
def test_lanes_train_and_answer_as_alone(family, kind, tiny_host, tmp_path):
    host, task = host_in(tiny_host(family)), task_of(kind, tmp_path)
    read, readout = encoded(host, task, "train"), readout_of(host, task)

    def trained(seeds: list[int]):
        made, config, start = start_of("lora", host, seeds)
        (found,) = trajectory(
            host,
            made,
            config,
            start,
            read,
            readout,
            settings=TrainingSettings(batch_size=4),
            budgets=[4],
            learning_rates=[0.02] * len(seeds),
            seeds=seeds,
        )
        return found

    both = trained([0, 1])
    assert both.failures == (None, None)
    for lane in range(2):
        alone = trained([lane])
        mine = {name: tensor[lane : lane + 1] for name, tensor in both.parameters.items()}
        assert distance(mine, alone.parameters) < 1e-4
        assert both.losses[lane] == pytest.approx(alone.losses[0], abs=1e-5)
    assert both.losses[0] != both.losses[1]


@pytest.mark.parametrize("kind", ["completion", "language"])
def test_training_lowers_the_loss(kind, tiny_host, tmp_path):
    host, task = host_in(tiny_host("llama")), task_of(kind, tmp_path)
    made, config, start = start_of("lora", host, [0])
    first, last = trajectory(
        host,
        made,
        config,
        start,
        encoded(host, task, "train"),
        readout_of(host, task),
        settings=TrainingSettings(batch_size=8),
        budgets=[1, 40],
        learning_rates=[0.02],
        seeds=[0],
    )
    assert last.losses[0] < 0.8 * first.losses[0]


def test_a_readout_keeps_each_row_s_loss(tiny_host, tmp_path):
    """Rows in whatever batches, under two lanes: the sum over a row's own tokens."""
    from peftport.training.evaluate import scores

    host, task = host_in(tiny_host("llama")), task_of("completion", tmp_path)
    read, readout = encoded(host, task, "test"), readout_of(host, task)
    made, config, lanes = start_of("lora", host, [0, 1])
    found = scores(host, made, config, lanes, read, readout)
    assert found.shape == (2, len(read), 1)
    for row in range(len(read)):
        loss = readout.losses(host, read.batch(np.array([row])), {}, 1)
        total = float(loss) * int(read.answer_lengths[row])
        assert float(found[0, row, 0]) == pytest.approx(total, abs=1e-4)


def test_figures_of_a_ratio_are_means_of_parts_and_their_spread_is_that_of_the_ratio():
    generator = np.random.default_rng(0)
    tokens = generator.integers(1, 30, 400)
    nats = generator.gamma(2.0, 1.0, 400) * tokens
    kept = Likelihood(nats, tokens, tokens * 4)
    assert kept.token_loss.mean() == pytest.approx(nats.sum() / tokens.sum())
    assert kept.perplexity.mean() == pytest.approx(np.exp(nats.sum() / tokens.sum()))
    assert kept.bits_per_byte.mean() == pytest.approx(nats.sum() / np.log(2) / tokens.sum() / 4)
    drawn = generator.integers(0, 400, (3000, 400))
    resampled = nats[drawn].sum(1) / tokens[drawn].sum(1)
    parts = ratio_parts(nats, tokens)[drawn].mean(1)
    assert parts.std() == pytest.approx(resampled.std(), rel=0.05)


@pytest.mark.parametrize("kind", ["completion", "choice", "language"])
def test_an_encoder_is_refused_with_the_reason(kind, tiny_host, tmp_path):
    from peftport.errors import BadInput

    host, task = host_in(tiny_host("bert")), task_of(kind, tmp_path)
    assert KINDS["bert"] == "encoder"
    with pytest.raises(BadInput, match="is an encoder and writes nothing"):
        readout_of(host, task)
