"""Good files of every kind that peftport reads, for tests to do something to."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file

from modules.formats.modules import made
from peftport.modules import formats
from study_specs import data as small_study
from tiny_gguf import write_gguf
from tiny_runs import host_in
from written_rows import chats, choices

GOLDEN = Path(__file__).parent / "golden"


def write_good(place: Path, tiny_host: Callable[[str], Path], tiny_task: Path) -> None:
    """Write good files of every kind that peftport reads under `place`, and the hosts they name."""
    hosts = {family: place / "hosts" / family for family in ("llama", "bert", "t5")}
    for family, folder in hosts.items():
        shutil.copytree(tiny_host(family), folder)
    _write_vocabularies(place / "hosts")
    llama, bert = host_in(hosts["llama"]), host_in(hosts["bert"])
    for name, module, kind in (
        ("own", made(llama, "lora"), "peftport"),
        ("lora", made(llama, "lora"), "peft"),
        ("prefix", made(llama, "prefix"), "peft"),
        ("head", made(bert, "lora", head="first"), "peft"),
        ("bottleneck", made(bert, "houlsby"), "adapterhub"),
        ("compacter", made(llama, "compacter"), "adapterhub"),
    ):
        formats.save(module, place / "modules" / name, kind)
    _write_pickled(place / "modules", "lora", "adapter_model")
    _write_pickled(place / "modules", "bottleneck", "adapter", "pytorch_adapter")
    _write_pickled(place / "modules", "bottleneck", "model_head", "pytorch_model_head")
    _write_task(place / "task", tiny_task)
    study = small_study(
        techniques={"lora": {"rank": 2}},
        hosts={"a": str(hosts["llama"]), "b": str(hosts["llama"])},
        tasks={"films": str(place / "task" / "rows.jsonl")},
        pairs=[{"origin": "a", "receiver": "b", "relation": "same"}],
    )
    study["pairs"] = [{"origin": "a", "receiver": "a", "relation": "same"}]
    study["training"]["learning_rates"] = {"lora": 0.01}
    (place / "study.yaml").write_text(yaml.safe_dump(study))
    _write_store(place / "store")
    _write_export(place / "store", place / "export")
    (place / "gguf").mkdir()
    write_gguf(tiny_host("qwen2"), place / "gguf" / "tiny.gguf")
    (hosts["llama"] / "peftport_host.json").write_text('{"from": null, "steps": 5}')


def _write_vocabularies(hosts: Path) -> None:
    """A host with tokenizers in the files that came before tokenizer.json."""
    llama, bert = (
        json.loads((hosts / name / "tokenizer.json").read_text())["model"]
        for name in ("llama", "bert")
    )
    merges = [each if isinstance(each, str) else " ".join(each) for each in llama["merges"]]
    files = {"vocab.json": json.dumps(llama["vocab"]), "merges.txt": "\n".join(merges)}
    first = min(llama["vocab"], key=llama["vocab"].get)
    special = {f"{name}_token": first for name in ("unk", "pad", "bos", "eos")}
    _with_tokenizer(hosts, "llama-merges", files, tokenizer_class="GPT2Tokenizer", **special)
    words = {"vocab.txt": "\n".join(sorted(bert["vocab"], key=bert["vocab"].get))}
    _with_tokenizer(hosts, "llama-words", words, tokenizer_class="BertTokenizer")


def _with_tokenizer(hosts: Path, name: str, files: dict[str, str], **told: str) -> None:
    shutil.copytree(hosts / "llama", hosts / name)
    (hosts / name / "tokenizer.json").unlink()
    (hosts / name / "tokenizer_config.json").write_text(json.dumps(told))
    for file, text in files.items():
        (hosts / name / file).write_text(text)


def _write_pickled(modules: Path, name: str, safe: str, pickled: str = "") -> None:
    """A module's folder of its own with a pickle in place of a file of tensors."""
    folder = modules / f"{name}-pickled"
    if not folder.exists():
        shutil.copytree(modules / name, folder)
    file = folder / f"{safe}.safetensors"
    torch.save(load_file(file), folder / f"{pickled or safe}.bin")
    file.unlink()


def _write_task(folder: Path, tiny_task: Path) -> None:
    import pandas as pd

    folder.mkdir()
    rows = pd.read_parquet(tiny_task / "train.parquet").head(40)
    rows.to_parquet(folder / "rows.parquet")
    rows.to_csv(folder / "rows.csv", index=False)
    rows.to_json(folder / "rows.jsonl", orient="records", lines=True)
    rows.to_json(folder / "rows.json", orient="records")
    (folder / "rows.txt").write_text("\n\n".join(rows["text"]))
    several = folder.with_name("texts")
    several.mkdir()
    for name in ("rows.txt", "rows.jsonl"):
        shutil.copy(folder / name, several)
    (folder / "chats.jsonl").write_text("\n".join(map(json.dumps, chats(40))))
    pd.DataFrame(choices(40)).assign(
        choices=[json.dumps(row["choices"]) for row in choices(40)]
    ).to_csv(folder / "choices.csv", index=False)
    task = {
        "name": "opinions",
        "source": "rows.csv",
        "text": "text",
        "label": "label",
        "labels": {"0": "bad", "1": "good"},
        "template": "{text} it was",
        "max_tokens": 64,
    }
    (folder / "task.yaml").write_text(yaml.safe_dump(task))


def _write_store(folder: Path) -> None:
    """The golden store, brought to the schema of today."""
    from peftport.studies.store import read_store

    folder.mkdir()
    with (
        read_store(GOLDEN / "store-v1") as store,
        closing(sqlite3.connect(folder / "study.sqlite")) as db,
    ):
        store.db.backup(db)
    (folder / "driver.lock").write_text('{"pid": 1, "host": "x", "since": "y"}')


def _write_export(store: Path, folder: Path) -> None:
    """A study's rows in every format that they are exported in."""
    from peftport.reports.exports import FORMATS, write_export
    from peftport.reports.stored import read_rows

    folder.mkdir()
    for form in FORMATS:
        (folder / f"rows.{form}").write_bytes(write_export(read_rows(store), form))
