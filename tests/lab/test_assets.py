"""What the shipped hosts of the lab must be: small, whole, able to read, ignorant of the tasks."""

from random import Random

import numpy as np
import pytest
import torch

from peftport.files import read_json
from peftport.hosts import load_host
from peftport.hosts.fingerprint import same_host, weights_mark
from peftport.hosts.genealogy import recorded
from peftport.lab import NAMES, RECORD, describe, folder, recipes
from peftport.lab import language as words
from peftport.lab.tasks import TASKS
from peftport.tasks import encode, encode_unlabelled, load_task
from peftport.training import evaluate, readout_of

pytestmark = pytest.mark.long


def test_together_they_are_smaller_than_six_megabytes():
    files = [file for name in NAMES for file in folder(name).iterdir()]
    assert sum(file.stat().st_size for file in files) < 6e6


@pytest.mark.parametrize("name", NAMES)
def test_a_host_has_its_recipes_shape_words_and_steps(name):
    host, recipe = load_host(f"lab:{name}"), recipes.RECIPES[name]
    shape = recipe.start
    while not isinstance(shape, recipes.Shape):
        shape = recipes.RECIPES[shape].start
    assert (host.geometry.width, host.geometry.heads) == (shape.width, shape.heads)
    assert host.geometry.stacks == {"encoder": shape.layers, "decoder": shape.layers}
    vocabulary = list(recipes.vocabulary())
    assert host.tokenizer.convert_ids_to_tokens(range(len(vocabulary))) == vocabulary
    assert describe(name)["steps"] == sum(stage.steps for stage in recipe.stages)


@pytest.mark.parametrize("name", ["small-tuned", "large-tuned"])
def test_a_continuation_comes_from_the_host_that_is_shipped(name):
    said = read_json(folder(name) / RECORD)["from"]
    assert same_host(said["fingerprint"], load_host(said["name"]).fingerprint)


@pytest.mark.parametrize(
    ("one", "other", "relation"),
    [
        ("small", "small", "same"),
        ("small-tuned", "small", "continuation"),
        ("small", "small-twin", "independent"),
        ("small-tuned", "large-tuned", "independent"),
    ],
)
def test_records_tell_how_two_hosts_are_related(one, other, relation):
    folders = folder(one), folder(other)
    assert recorded(*folders).relation(*map(weights_mark, folders)) == relation


@pytest.mark.parametrize("name", NAMES)
def test_a_host_does_on_new_text_what_its_record_says(name):
    """The recorded loss, of the last steps, is met on text that the recipe never drew."""
    host, stage = load_host(f"lab:{name}"), recipes.RECIPES[name].stages[-1]
    objective, ids = recipes.objective()
    documents, rng = recipes.text(stage, Random("new text")), np.random.default_rng(0)
    losses = []
    for _ in range(24):
        rows = [np.asarray([ids[w] for w in next(documents).split()]) for _ in range(48)]
        with torch.no_grad():
            losses.append(float(objective.loss(host.model, objective.batch(rows, rng))))
    assert np.mean(losses) == pytest.approx(describe(name)["loss"], rel=0.25)


@pytest.mark.parametrize("name", NAMES)
def test_a_host_reads_reviews_through_negation_and_contrast(name):
    """After an unlabelled review, more advice of its polarity than of the other."""
    host, rng = load_host(f"lab:{name}"), Random("reviews")
    texts = [words.task_review(rng, words.DOMAINS["films"], i % 2) for i in range(400)]
    inputs = host.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = host.next_token_logits(inputs["input_ids"], inputs["attention_mask"])
    sides = [
        host.tokenizer.convert_tokens_to_ids([form.split()[0] for form in words.ADVICE[polarity]])
        for polarity in (0, 1)
    ]
    chances = logits.softmax(-1)  # (rows, vocabulary)
    says_good = chances[:, sides[1]].sum(-1) > chances[:, sides[0]].sum(-1)
    right = (says_good.long() == torch.arange(400) % 2).float().mean()
    assert right > 0.8


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("task", TASKS)
def test_a_bare_host_does_not_know_the_task(name, task):
    """By the order of its scores, or corrected for two classes.

    `benchmarks/lab.py` holds the same, and what modules do, on the rows of the test split.
    """
    host, rows = load_host(f"lab:{name}"), load_task(f"lab:{task}")
    kind, readout = host.geometry.kind, readout_of(host, rows)
    split = encode(host.tokenizer, rows, "validation", kind)
    # Of three classes nothing corrected is bounded.
    texts = encode_unlabelled(host.tokenizer, rows, kind) if rows.classes == 2 else None
    (found,) = evaluate(host, None, None, {}, split, readout, texts)
    assert 0.4 <= found.figures["auroc"] <= 0.6
    if rows.classes == 2:
        assert found.figures["corrected_accuracy"] <= 0.56
