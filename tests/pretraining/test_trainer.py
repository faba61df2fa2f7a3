"""Training goes through every row, moves every weight, and stops where it cannot go on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from peftport.errors import BadInput, RunFailed
from peftport.pretraining.objectives import NextToken
from peftport.pretraining.trainer import FLOOR, batches, schedule, train_model
from tiny_hosts import build_model, digest

OBJECTIVE = NextToken(end=2, pad=2, start=1)


def rows(count: int = 60) -> list[np.ndarray]:
    """Texts in which every token is told by the one before it."""
    rng = np.random.default_rng(0)
    return [(np.arange(length) + 5) for length in rng.integers(3, 20, size=count)]


def trained(seed: int = 0, **options) -> tuple[torch.nn.Module, list[float]]:
    model = build_model("llama")
    options = {"steps": 12, "learning_rate": 1e-2, "tokens_per_batch": 100, **options}
    return model, train_model(model, rows(), OBJECTIVE, seed=seed, **options)


def test_the_loss_falls_and_every_weight_moves():
    model, losses = trained(steps=30)
    assert len(losses) == 30
    assert np.mean(losses[-3:]) < 0.5 * losses[0]
    before = dict(build_model("llama").named_parameters())
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_the_seed_decides_everything():
    (one, losses), (same, _), (other, _) = trained(), trained(), trained(seed=1)
    assert digest(one) == digest(same) != digest(other)
    seen = []
    trained(progress=lambda step, loss: seen.append((step, loss)))
    assert seen == list(enumerate(losses, start=1))


def test_dropout_is_off():
    from transformers import BertConfig, BertForMaskedLM

    from peftport.pretraining.objectives import MaskedTokens

    def losses(dropout: float) -> list[float]:
        config = BertConfig(
            vocab_size=40,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
        torch.manual_seed(0)
        objective = MaskedTokens(4, 0, range(5, 40), 2, 3)
        model = BertForMaskedLM(config).train()
        options = {"steps": 3, "learning_rate": 1e-2, "seed": 0, "tokens_per_batch": 100}
        return train_model(model, rows(), objective, **options)

    assert losses(0.0) == losses(0.5)


def test_a_loss_that_is_not_finite_ends_the_training():
    with pytest.raises(RunFailed, match=r"not finite at step \d+ \(learning rate 1e\+30\)"):
        trained(learning_rate=1e30)


def test_less_text_than_a_batch_is_refused():
    with pytest.raises(BadInput, match=r"has \d+ tokens, which is less than one batch of 100000"):
        trained(tokens_per_batch=100_000)


def test_the_learning_rate_rises_then_falls_to_its_floor():
    factors = [schedule(step, 100) for step in range(100)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[5:] == sorted(factors[5:], reverse=True)
    assert FLOOR < factors[-1] < FLOOR + 0.01
    assert schedule(0, 1) == 1.0


@pytest.mark.parametrize("count", [40, 999])
def test_batches_go_through_all_rows_within_their_tokens(count):
    lengths = np.random.default_rng(1).integers(1, 30, size=count)
    drawn = batches(lengths, 120, np.random.default_rng(0))
    for _ in range(3):
        epoch: list[int] = []
        while len(epoch) < count:
            rows = next(drawn)
            assert lengths[rows].max() * len(rows) <= 120
            epoch += rows.tolist()
        assert sorted(epoch) == list(range(count))


def test_batches_hold_rows_of_about_one_length():
    lengths = np.random.default_rng(1).integers(1, 30, size=5000)
    drawn = batches(lengths, 120, np.random.default_rng(0))
    found = [lengths[next(drawn)] for _ in range(400)]
    padded = sum(len(batch) * batch.max() for batch in found)
    assert sum(batch.sum() for batch in found) > 0.85 * padded


def test_a_row_longer_than_a_batch_is_a_batch():
    drawn = batches(np.asarray([50, 2, 2]), 10, np.random.default_rng(0))
    assert any(rows.tolist() == [0] for rows in (next(drawn) for _ in range(4)))
