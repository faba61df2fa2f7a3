"""Other packages add techniques, methods, kinds, metrics and executors by entry points, in every
process."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

import peftport as pp
from peftport import plugins
from peftport.errors import BadInput
from peftport.hosts.source import geometry_by_name
from peftport.kind import KINDS
from peftport.metrics import METRICS, Metrics
from peftport.modules import formats, load_module
from peftport.porting import METHODS, port_method
from peftport.studies.executors import EXECUTORS
from peftport.techniques import TECHNIQUES, technique

OWN_METRICS = dict(METRICS)
"""As they are before any package adds to them."""
SHIFT = '''
"""A technique of its own: a vector that is added to what each layer gives on."""

import torch

from peftport.techniques.base import Configuration, Technique, by_lane, hooked, lanes_of


class ShiftConfig(Configuration):
    size: float = 0.0


class Shift(Technique):
    name = "shift"
    learning_rate = 1e-2
    Config = ShiftConfig

    def shapes(self, config, geometry):
        return {f"{block}.shift": (geometry.width,) for block in geometry.blocks}

    def initial(self, config, geometry, generator):
        shapes = self.shapes(config, geometry)
        return {n: config.size * torch.randn(s, generator=generator) for n, s in shapes.items()}

    def attach(self, host, config, parameters):
        def add(vector):
            lanes = lanes_of(parameters)

            def rewrite(_inputs, output):
                moved = by_lane(output, lanes) + vector[:, None]  # (lanes, batch*tokens, width)
                return moved.view_as(output)

            return rewrite

        paths = {name: host.geometry.blocks[name].path for name in host.geometry.blocks}
        return hooked(host, {path: add(parameters[f"{n}.shift"]) for n, path in paths.items()})
'''
PAIR = '''
"""A technique of its own whose changes are products of two factors: LoRA by other names."""

from peftport.porting.rewriting import ByFactors
from peftport.techniques import technique
from peftport.techniques.base import Technique

LORA = technique("lora")
NAMES = {"first": "lora_A", "second": "lora_B"}
OTHERS = {theirs: ours for ours, theirs in NAMES.items()}


def renamed(tensors, names):
    split = {name: name.rpartition(".") for name in tensors}
    return {f"{at}.{names[last]}": tensors[n] for n, (at, _, last) in split.items()}


class Pair(Technique):
    name = "pair"
    learning_rate = 1e-2
    Config = LORA.Config
    gates = (("second",), ("first",))
    rewriting = "toy_pair:PairByFactors"

    def shapes(self, config, geometry):
        return renamed(LORA.shapes(config, geometry), OTHERS)

    def initial(self, config, geometry, generator):
        return renamed(LORA.initial(config, geometry, generator), OTHERS)

    def attach(self, host, config, parameters):
        return LORA.attach(host, config, renamed(parameters, NAMES))

    def limit(self, geometry):
        return "it is a toy" if geometry.kind == "encoder" else None


class PairByFactors(ByFactors):
    def configured(self, rank, places):
        return LORA.configure({"rank": rank, "alpha": rank, "targets": list(places)})

    def points(self, config, geometry):
        return {name.rpartition(".")[0]: geometry.linears[name.rpartition(".")[0]]
                for name in LORA.shapes(config, geometry)}

    def factors(self, tensors, point):
        return tensors[f"{point}.second"], tensors[f"{point}.first"]

    def of_factors(self, point, up, down):
        return {f"{point}.second": up, f"{point}.first": down}
'''
OTHERS = """
import numpy as np

from peftport.metrics import Metric
from peftport.porting.copy import Copy
from peftport.studies.executors.local import LocalExecutor


class Again(Copy):
    name = "again"


class Elsewhere(LocalExecutor):
    pass


surprise = Metric("surprise", "lower", lambda scored: np.ones(len(scored.labels)))
nothing = 5
"""

COUNTING = '''
"""A kind of its own: how many words a text has, one number for each row, read off the first token
of a number's word."""

import numpy as np
from torch.nn import functional

from peftport.kept import Answers, Lengths
from peftport.kind import Kind, Lessons
from peftport.metrics import Evaluation, Metric
from peftport.training.readout import Readout

MOST = 9


def nearness(kept):
    said, true = kept
    return -np.abs(said - true).astype(float)


METRICS = {"nearness": Metric("nearness", "higher", nearness)}


class Counts(Readout):
    classes, columns = 0, MOST

    def __init__(self, tokens):
        self.tokens = tokens

    def answers(self, host, batch, parameters):
        return host.next_token_logits(batch.input_ids, batch.attention_mask, self.tokens)

    def losses(self, host, batch, parameters, lanes):
        logits = self.answers(host, batch, parameters)
        rows = functional.cross_entropy(logits, batch.labels, reduction="none")
        return rows.view(lanes, -1).mean(1)

    def evaluation(self, answers, encoded, unlabelled, written):
        return Evaluation.of((answers.argmax(1), encoded.labels), METRICS, len(encoded))


class Counting(Kind):
    name = "counting"
    about = "How many words a text has."
    forms = ("texts",)
    labelled = False
    max_tokens = 64
    primary = plain = ranking = "nearness"
    metrics = METRICS

    def encode(self, tokenizer, task, split, host_kind):
        return self.encode_texts(tokenizer, task, task.split(split).texts, host_kind)

    def encode_texts(self, tokenizer, task, texts, host_kind):
        from peftport.tasks import encode_texts

        counts = [min(len(text.split()), MOST - 1) for text in texts]
        return encode_texts(tokenizer, task, texts, counts, host_kind)

    def readout(self, host, task, module=None):
        self.require_host(host.name, host.geometry.kind)
        return Counts([host.tokenizer.convert_tokens_to_ids(str(n)) for n in range(MOST)])

    def lessons(self, teacher, task, texts, how):
        def encode(tokenizer, host_kind):
            return self.encode_texts(tokenizer, task, texts, host_kind)

        return Lessons(encode, {"texts": len(texts)})

    def gold(self, task, split):
        counts = [len(text.split()) for text in task.split(split).texts]
        return np.array(counts, np.int32).tobytes()

    def read_gold(self, data, record):
        return np.frombuffer(data, np.int32)

    def pack(self, evaluation):
        said, _ = evaluation.scored
        return Answers(b"", said.astype(np.int32).tobytes())

    def unpack(self, answers, gold, record):
        return np.frombuffer(answers.scores, np.int32), gold

    def lengths(self, gold, record):
        return Lengths(0, 4 * len(gold), 0)


COUNTING = Counting()
'''


@pytest.fixture
def install(tmp_path, monkeypatch):
    """A function that installs a package with modules and entry points, for this test."""

    def installed(name: str, modules: dict[str, str], groups: dict[str, dict[str, str]]) -> Path:
        folder = tmp_path / name
        record = folder / f"{name.replace('-', '_')}-1.0.dist-info"
        record.mkdir(parents=True)
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = []
        for group, entries in groups.items():
            lines += [f"[peftport.{group}]", *(f"{key} = {at}" for key, at in entries.items())]
        (record / "entry_points.txt").write_text("\n".join(lines))
        for module, text in modules.items():
            (folder / f"{module}.py").write_text(text)
        monkeypatch.syspath_prepend(str(folder))
        _forget()
        return folder

    yield installed
    monkeypatch.undo()
    _forget()


def _forget() -> None:
    plugins.plugins.cache_clear()
    plugins.added.cache_clear()


def test_a_technique_of_another_package_runs_in_a_study_with_two_workers(install, tmp_path):
    package = install(
        "toy-shift", {"toy_shift": SHIFT}, {"techniques": {"shift": "toy_shift:Shift"}}
    )
    spec = {
        "name": "toy",
        "techniques": {"shift": {"size": 0.01}},
        "pairs": [
            {"origin": "lab:small", "receiver": "lab:small-tuned", "relation": "continuation"}
        ],
        "settings": [{"origin_task": "lab:films", "task": "lab:films"}],
        "budgets": [0, 2],
        "seeds": 2,
        "donor_steps": 3,
        "native_steps": 3,
        "limit_train": 64,
        "limit_test": 64,
        "training": {"learning_rates": {"shift": 0.01}},
        "lanes": 2,
    }
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(spec))
    told = [sys.executable, "-m", "peftport", "study", "run", str(tmp_path / "toy.yaml")]
    ended = subprocess.run(
        [*told, "--out", str(tmp_path / "study"), "--workers", "2", "--threads", "1", "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(package), *sys.path])},
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert (found["failed"], found["missing"]) == (0, 0)
    assert found["done"] == 16  # 2 seeds of 2 ported, 2 sampled, 2 scratch, 1 native, 1 host


def test_every_kind_of_thing_is_found_by_its_name(install):
    install(
        "toy-others",
        {"toy_others": OTHERS, "toy_shift": SHIFT},
        {
            "techniques": {"shift": "toy_shift:Shift"},
            "methods": {"again": "toy_others:Again"},
            "metrics": {"surprise": "toy_others:surprise"},
            "executors": {"elsewhere": "toy_others:Elsewhere"},
        },
    )
    assert technique("shift").name == "shift"
    assert port_method("again").name == "again"
    assert EXECUTORS.get("elsewhere").__name__ == "Elsewhere"
    assert list(TECHNIQUES)[-1] == "shift"
    assert "again" in list(METHODS)
    metrics = Metrics(dict(OWN_METRICS))
    assert metrics["surprise"].title == "surprise"
    assert list(metrics) == [*OWN_METRICS, "surprise"]


def test_a_wrong_name_is_told_those_of_other_packages(install):
    install("toy-shift", {"toy_shift": SHIFT}, {"techniques": {"shift": "toy_shift:Shift"}})
    with pytest.raises(BadInput, match=r"unknown technique 'shft'\. Did you mean 'shift'\?"):
        TECHNIQUES.get("shft")


@pytest.mark.parametrize(
    ("text", "place", "why"),
    [
        (
            "import nowhere_at_all",
            "Broken",
            "ModuleNotFoundError: No module named 'nowhere_at_all'",
        ),
        ("1 / 0", "Broken", "ZeroDivisionError: division by zero"),
        ("", "Broken", "AttributeError: module 'toy_broken' has no attribute 'Broken'"),
        ("class Broken: pass", "Broken", "toy_broken:Broken is no Technique of peftport's"),
        ("Broken = 5", "Broken", "toy_broken:Broken is no Technique of peftport's"),
    ],
)
def test_a_package_that_does_not_work_is_named(install, text, place, why):
    sys.modules.pop("toy_broken", None)
    install("toy-broken", {"toy_broken": text}, {"techniques": {"bad": f"toy_broken:{place}"}})
    assert technique("lora").name == "lora"
    with pytest.raises(BadInput) as error:
        technique("bad")
    assert str(error.value) == (
        f"technique 'bad' comes from the package toy-broken 1.0, which does not work: {why}. "
        "Mend that package or remove it."
    )


def test_what_peftport_has_itself_stays(install, caplog):
    install("toy-shift", {"toy_shift": SHIFT}, {"techniques": {"lora": "toy_shift:Shift"}})
    with caplog.at_level(logging.WARNING):
        assert list(TECHNIQUES).count("lora") == 1
        assert technique("lora").name == "lora"
    assert "the package toy-shift 1.0 adds 'lora' to peftport.techniques" in caplog.text


def test_one_name_of_two_packages_is_refused_with_both(install):
    for name in ("toy-one", "toy-two"):
        place = f"{name.replace('-', '_')}:Shift"
        install(name, {}, {"techniques": {"shift": place}})
    with pytest.raises(BadInput, match=r"twice, from the packages toy-\w+ 1\.0 and toy-\w+ 1\.0"):
        technique("shift")


def test_a_kind_of_another_package_trains_and_tests(install, tiny_host, tmp_path):
    install(
        "toy-counting", {"toy_counting": COUNTING}, {"kinds": {"counting": "toy_counting:COUNTING"}}
    )
    assert list(KINDS)[-1] == "counting"
    folder = tmp_path / "texts"
    folder.mkdir()
    for split, rows in (("train", 40), ("validation", 8), ("test", 8)):
        lines = [json.dumps({"text": "the film " * (1 + row % 3)}) for row in range(rows)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    host = tiny_host("llama")
    told = {"kind": "counting"}
    made = pp.train(host, str(folder), "lora", steps=40, learning_rate=0.03, batch_size=8, **told)
    found = pp.test(made.module, host, str(folder), **told)
    assert found.figures == {"nearness": 0.0, "n_test": 8}
    text = f"{found}".replace("-0.000", "0.000")
    assert text.endswith("nearness  0.000 (0.000 to 0.000)")
    with pytest.raises(BadInput, match="is an encoder and writes nothing: tasks of kind counting"):
        pp.train(tiny_host("bert"), str(folder), "lora", steps=1, **told)
    with pytest.raises(BadInput, match=r"unknown task kind 'countin'\. Did you mean 'counting'"):
        pp.test(made.module, host, str(folder), kind="countin")


def test_a_technique_that_is_only_a_core_trains_saves_copies_and_is_refused_by_name_for_the_rest(
    install, tiny_host, tiny_continuation, tiny_task, tmp_path
):
    install("toy-shift", {"toy_shift": SHIFT}, {"techniques": {"shift": "toy_shift:Shift"}})
    host = tiny_host("llama")
    made = pp.train(host, str(tiny_task), "shift", steps=1, out=tmp_path / "module").module
    loaded, module = pp.load_module(tmp_path / "module"), load_module(tmp_path / "module")
    assert made.technique == module.technique == "shift"
    ported = pp.port(loaded, tiny_continuation("llama"), method="copy")
    assert all(torch.equal(t, module.tensors[n]) for n, t in ported.module.tensors.items())
    for asked, why in (
        (
            lambda: formats.save(module, tmp_path / "p", "peft"),
            "peft has no shift; write it",
        ),
        (lambda: formats.save(module, tmp_path / "a", "adapterhub"), "adapterhub has no shift"),
        (lambda: pp.port(loaded, host, method="procrustes"), "lora, prefix, not shift"),
        (lambda: pp.port(loaded, host, method="subspace"), "it ports lora, not shift"),
        (
            lambda: pp.port(loaded, host, method="copy", rank=2),
            "of LoRA, and the module is of shift",
        ),
        (lambda: pp.merge(loaded, host, tmp_path / "merged"), "shift cannot be merged"),
    ):
        with pytest.raises(BadInput, match=why):
            asked()
    rows = {row["technique"]: row for row in pp.list_formats().techniques}
    assert (rows["shift"]["peftport"], rows["shift"]["peft"]) == ("read, written", "refused")


def test_a_technique_of_two_factors_goes_by_every_method_that_rewrites_such(
    install, tiny_host, tiny_task, tmp_path
):
    """Its modules go as LoRA's of the same factors do, and it stands in every table."""
    install("toy-pair", {"toy_pair": PAIR}, {"techniques": {"pair": "toy_pair:Pair"}})
    host, other = tiny_host("llama"), tiny_host("gpt2")
    found = {}
    for name in ("lora", "pair"):
        told = {"steps": 3, "seed": 5, "learning_rate": 0.01, "options": {"targets": ["up"]}}
        donor = pp.train(host, str(tiny_task), name, **told).module
        for method in ("subspace", "ridge"):
            texts = {"texts": str(tiny_task)} if method == "ridge" else {}
            ported = pp.port(donor, other, method=method, **texts, out=tmp_path / name / method)
            assert ported.module.technique == name
            found[name, method] = ported.module.tensors
    for method in ("subspace", "ridge"):
        theirs, own = found["lora", method], found["pair", method]
        names = {n: n.replace("lora_A", "first").replace("lora_B", "second") for n in theirs}
        assert own.keys() == set(names.values())
        assert all(torch.equal(theirs[n], own[named]) for n, named in names.items())
    families = {each["family"]: each for each in pp.list_families().families}
    assert families["bert"]["refused"]["pair"] == "it is a toy"
    assert families["bert"]["in_part"] == ["pair"]
    assert "pair" in pp.list_families().page().splitlines()[10]


def test_a_technique_of_another_package_is_refused_where_it_needs_a_known_family(install):
    """What a host of no known family takes is what each technique says, by name or not."""
    only = SHIFT.replace('    name = "shift"\n', '    name = "shift"\n    by_family = True\n')
    install("toy-shift", {"toy_only": only}, {"techniques": {"shift": "toy_only:Shift"}})
    known = geometry_by_name("lab:small")
    unknown = replace(known, family="of no name")
    made = technique("shift")
    made.require(known)
    with pytest.raises(BadInput, match=r"shift cannot be made for a of no name host: its family"):
        made.require(unknown)
