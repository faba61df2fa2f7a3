"""Files that were made to hurt, each in a command of its own limits: refused, quickly, in less than
1 GB."""

from __future__ import annotations

import json
import sqlite3
import struct
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from good_files import write_good
from strangers import circle, endless, folder, header_of, pipe, sparse, with_header

pytestmark = pytest.mark.long

BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
)
SECONDS, MEMORY = 20, 1_000_000


def replaced(**changes):
    """A function that sets keys of a JSON file."""
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def written(text: str | bytes):
    """A function that writes a file."""
    data = text if isinstance(text, bytes) else text.encode()
    return lambda path: path.write_bytes(data)


def put(special):
    """A function that puts something else than a file in a file's place."""
    return lambda path: (path.unlink(), special(path))


def in_header(change):
    """A function that changes the first entry of a safetensors file's header."""

    def changed(path: Path) -> None:
        header, data = header_of(path)
        name = next(name for name in header if name != "__metadata__")
        path.write_bytes(with_header(header | {name: header[name] | change}, data))

    return changed


def many_tensors(path: Path) -> None:
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    path.write_bytes(with_header({f"tensor.{n}": entry for n in range(1_000_000)}, b""))


def doubled(path: Path) -> None:
    text = path.read_text().rstrip()
    path.write_text(text[:-1] + ', "r": 4, "r": 5}')


def one_line(path: Path) -> None:
    path.write_text("text,label\n" + "good " * 8_000_000 + ",1\n")


def many_columns(path: Path) -> None:
    row = {"text": "good", "label": 1} | {f"c{n}": 0 for n in range(200_000)}
    path.write_text(json.dumps(row) if path.suffix == ".jsonl" else ",".join(row) + "\n")


def sparse_rows(path: Path) -> None:
    """A small file that claims a billion cells."""
    row = '{"text": "good", "label": 1, "c%d": 0}\n'
    path.write_text("".join(row % (n % 9_000) for n in range(60_000)))


def one_list(path: Path) -> None:
    """Four million rows in one line of JSON."""
    row = '{"text": "%d", "label": 1}'
    path.write_text("[" + ",".join(row % n for n in range(4_000_000)) + "]")


def one_row(path: Path) -> None:
    path.write_text('[{"label": 1, "text": "' + "good " * 60_000_000 + '"}]')


def of_one_line(path: Path) -> None:
    path.write_text("good " * 60_000_000)


def of_one_text(path: Path) -> None:
    path.write_text("good film\n" * 30_000_000)


def short_texts(path: Path) -> None:
    path.write_text("\n\n".join(map(str, range(4_000_000))))


def repeated_text(path: Path) -> None:
    """A Parquet file of 2 kB, whose texts are a gigabyte."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), ["x" * 1_000_000])
    table = pa.table({"text": texts.cast(pa.string()), "label": [0, 1] * 500})
    pq.write_table(table, path, compression="zstd")


def scattered(path: Path) -> None:
    """Columns, few enough, that most rows leave out."""
    path.write_text("\n".join(json.dumps({f"c{n % 64}": 1}) for n in range(600_000)))


def short_turns(path: Path) -> None:
    """Chats of millions of turns."""
    turn, answer = '{"role": "user", "content": "a"}', '{"role": "assistant", "content": "b"}'
    row = '{"messages": [' + f"{turn}, " * 1000 + answer + "]}"
    path.write_text("\n".join([row] * 1000))


def endless_view(path: Path) -> None:
    """A store in which a table is a view whose rows never end."""
    rows = "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT x, x FROM r"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("DROP TABLE gold")
        db.execute(f"CREATE VIEW gold (task, labels) AS {rows}")


def computed(path: Path) -> None:
    """A store in which a column is computed: a gigabyte in each row."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("ALTER TABLE runs ADD COLUMN x BLOB GENERATED ALWAYS AS (zeroblob(999999999))")


def older(spoil):
    """A function that does the same to a store and says that an older package wrote it."""

    def spoiled(path: Path) -> None:
        spoil(path)
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("PRAGMA user_version = 2")

    return spoiled


STORE = "store/study.sqlite"
STUDY = "study plan {}/study.yaml --no-measure"
OWN = "check {}/modules/own --host {}/hosts/llama"
LORA = "check {}/modules/lora --host {}/hosts/llama"
COPY = "port {}/modules/own --host {}/hosts/llama --method copy --out {}/out"
TASK = "test {}/modules/own --host {}/hosts/llama --task {}/task/task.yaml --limit-test 8"
ROWS = "test {}/modules/own --host {}/hosts/llama --task {}/"
DATA = OWN + " --task {}/task/rows."
TEXTS = OWN + " --forecast --texts {}/task/rows."
MUCH = "takes more than 167,772,160 bytes of memory"
LONGER = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 16}
RECORD, TENSORS = "modules/own/module.json", "modules/own/module.safetensors"
CONFIG, HOST = "modules/lora/adapter_config.json", "hosts/llama/config.json"
GEOMETRY = {"family": "llama", "gated": True, "width": 32, "vocabulary": 99, "heads": 4}
SIZES = {"kv_heads": 2, "head_dim": 8, "ffn": 64}
CASES = {
    "aliases": (STUDY, "study.yaml", written(BOMB), "aliases written out"),
    "an alias of itself": (STUDY, "study.yaml", written("a: &a [*a]"), "within what it stands for"),
    "no integer": (STUDY, "study.yaml", written("seeds: !!int abc"), "is not valid YAML"),
    "no time": (STUDY, "study.yaml", written("name: 2001-99-99"), "is not valid YAML"),
    "deep YAML": (STUDY, "study.yaml", written("[" * 5000), "is not valid YAML"),
    "a key twice": (STUDY, "study.yaml", written("name: a\nname: b"), "in one mapping twice"),
    "half a character in YAML": (STUDY, "study.yaml", written('name: "\\ud800"'), "surrogates"),
    "long integer in YAML": (STUDY, "study.yaml", written("seeds: " + "9" * 5000), "5,000 digits"),
    "a view without end": ("study status {}/store", STORE, endless_view, "the view 'gold'"),
    "such a view, older": ("study export {}/store", STORE, older(endless_view), "the view 'gold'"),
    "a rescue of such": ("study rescue {}/store --out {}/n", STORE, endless_view, "cannot be read"),
    "a computed column": (
        "study report {}/store --out {}/n",
        STORE,
        computed,
        "runs.x is computed",
    ),
    "one line": (ROWS + "rows.csv", "rows.csv", one_line, "line 2 of"),
    "many columns": (ROWS + "rows.csv", "rows.csv", many_columns, "has 200,002 columns"),
    "as many keys": (ROWS + "rows.jsonl", "rows.jsonl", many_columns, "has 200,002 columns"),
    "keys that few rows have": (ROWS + "rows.jsonl", "rows.jsonl", sparse_rows, "9,002 columns"),
    "one line of no JSON": (ROWS + "rows.json", "rows.json", one_line, "line 1 of"),
    "a list in one line": (DATA + "json", "task/rows.json", one_list, MUCH),
    "a list of one row": (DATA + "json", "task/rows.json", one_row, "row 1 of"),
    "a text of one line": (TEXTS + "txt", "task/rows.txt", of_one_line, "line 1 of"),
    "a text of many lines": (TEXTS + "txt", "task/rows.txt", of_one_text, "by blank lines"),
    "texts of a word": (TEXTS + "txt", "task/rows.txt", short_texts, MUCH),
    "a text a thousand times": (DATA + "parquet", "task/rows.parquet", repeated_text, MUCH),
    "columns that few rows have": (DATA + "jsonl", "task/rows.jsonl", scattered, MUCH),
    "chats of many turns": (DATA + "jsonl", "task/rows.jsonl", short_turns, MUCH),
    "large seeds": (STUDY + f" --set seeds=[{2**63}]", None, None, "seeds"),
    "layers": (
        OWN,
        RECORD,
        replaced(geometry=GEOMETRY | SIZES | {"stacks": {"decoder": 10**9}}),
        "from 1 to 2,000",
    ),
    "many tensors": (OWN, TENSORS, many_tensors, "its header has"),
    "a negative shape": (OWN, TENSORS, in_header({"shape": [-1, -32]}), "no shape"),
    "a broken shape": (OWN, TENSORS, in_header({"shape": [4.0, 32.0]}), "no shape"),
    "a huge shape": (OWN, TENSORS, in_header({"shape": [2**62, 2**62, 0]}), "that no tensor has"),
    "a place in fractions": (OWN, TENSORS, in_header({"data_offsets": [0.0, 512.0]}), "no place"),
    "a long integer": (OWN, RECORD, written('{"format": ' + "9" * 5000 + "}"), "5,000 digits"),
    "deep JSON": (OWN, RECORD, written("[" * 100_000), "nested deeper"),
    "half a character": (LORA, CONFIG, replaced(peft_type="\ud800"), "surrogates"),
    "one key twice": (LORA, CONFIG, doubled, "'r' stands in one object twice"),
    "a long name": (LORA, CONFIG, replaced(base_model_name_or_path="x" * 5000), "base_model_name"),
    "a name with a null": (LORA, CONFIG, replaced(base_model_name_or_path="a\0b"), "base_model"),
    "a layer count in words": (OWN, HOST, replaced(num_hidden_layers="two"), "configuration"),
    "a width of lists": (OWN, HOST, replaced(hidden_size=[32]), "configuration"),
    "a type that is a list": (OWN, HOST, replaced(model_type=["llama"]), "model"),
    "a pipe": (OWN, RECORD, put(pipe), "module.json"),
    "a pipe of tensors": (OWN, TENSORS, put(pipe), "expected a file"),
    "an endless file": (OWN, HOST, put(endless), "expected a file"),
    "an endless study": (STUDY, "study.yaml", put(endless), "expected a file"),
    "a folder": (OWN, TENSORS, put(folder), "expected a file"),
    "a circle": (OWN, TENSORS, put(circle), "cannot be opened"),
    "64 GB of nothing": (OWN, RECORD, put(sparse), "more than"),
    "64 GB of words": (
        TASK.replace("llama", "llama-words"),
        "hosts/llama-words/vocab.txt",
        put(sparse),
        "larger than any tokenizer's file",
    ),
    "a GGUF file of 2**63 keys": (
        "hosts describe {}/gguf/tiny.gguf",
        "gguf/tiny.gguf",
        written(b"GGUF" + struct.pack("<IQQ", 3, 0, 2**63)),
        "it claims 9223372036854775808 keys",
    ),
    "a GGUF file of 16 million layers": (
        "hosts describe {}/gguf/tiny.gguf",
        "gguf/tiny.gguf",
        written(
            b"GGUF"
            + struct.pack("<IQQQ", 3, 1, 1, 17)
            + b"llama.block_count"
            + struct.pack("<II", 4, 2**24)
        ),
        "it claims 16777216 layers, and has 1 tensors",
    ),
    "a GGUF file of an endless list": (
        "hosts describe {}/gguf/tiny.gguf",
        "gguf/tiny.gguf",
        written(
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q1sIIQ", 1, b"a", 9, 8, 2**62)
        ),
        "strings, which it has no bytes for",
    ),
    "a tokenizer that writes a letter as many": (
        TASK,
        "hosts/llama/tokenizer.json",
        replaced(normalizer={"type": "Sequence", "normalizers": [LONGER] * 7}),
        "more than 10,000 times as long",
    ),
    "a tokenizer in a pipe": (
        COPY,
        "hosts/llama/tokenizer.json",
        put(pipe),
        "",
    ),
}

# Every command in one process: what is measured is the largest memory of all of them. It is read
# off the process's own status, for getrusage counts that of the process which started it, too.
_RUN = """
import json, re, signal, sys
import peftport.cli as cli
for name, arguments in json.loads(sys.argv[1]).items():
    sys.argv = ["peftport", *arguments]
    signal.alarm(%d)
    try:
        cli.main()
        code = 0
    except SystemExit as ended:
        code = ended.code
    signal.alarm(0)
    print(json.dumps([name, code]), flush=True)
    print("END OF", name, file=sys.stderr, flush=True)
peak = re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())
print(json.dumps(["memory", int(peak[1])]))
"""


@pytest.mark.timeout(600)
def test_files_made_to_hurt_are_refused_quickly_and_in_little_memory(
    tiny_host, tiny_task, tmp_path
):
    write_good(tmp_path / "good", tiny_host, tiny_task)
    commands = {}
    for number, (name, (command, file, spoil, _)) in enumerate(CASES.items()):
        place = tmp_path / str(number)
        subprocess.run(["cp", "-r", tmp_path / "good", place], check=True)
        if file is not None:
            spoil(place / file)
        commands[name] = [part.replace("{}", str(place)) for part in command.split()]
    ended = subprocess.run(
        [sys.executable, "-c", _RUN % SECONDS, json.dumps(commands)],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = dict(map(json.loads, (x for x in ended.stdout.splitlines() if x.startswith('["'))))
    assert found.pop("memory") < MEMORY  # kB
    said = ended.stderr
    for name, (*_, why) in CASES.items():
        error, _, said = said.partition(f"END OF {name}\n")
        assert "Traceback" not in error, error[error.index("Traceback") :]
        if why:
            assert (name, found[name]) == (name, 2), error
            assert why in error
        else:
            assert found[name] in (0, 2)
