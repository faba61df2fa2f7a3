"""`peftport study`, as a user calls it."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from peftport.studies.schema import COLUMNS
from study_specs import figures, tiny_spec

pytestmark = pytest.mark.long

COMMAND = [sys.executable, "-c", "from peftport.cli import main; main()", "study"]


def start(*arguments: object, **options) -> subprocess.CompletedProcess:
    """A command in a process of its own."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        timeout=200,
        **{"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


@pytest.fixture
def said(call):
    """A function that calls a command in this process; its workers are processes all the same."""

    def run(*arguments: object) -> subprocess.CompletedProcess:
        return subprocess.CompletedProcess(arguments, *call("study", *arguments))

    return run


@pytest.fixture(scope="module")
def spec_file(tiny_host, tiny_continuation, tiny_task, tmp_path_factory) -> Path:
    made = tiny_spec(
        {"a": tiny_host("t5"), "b": tiny_continuation("t5")},
        tiny_task,
        pairs=[{"origin": "a", "receiver": "b", "relation": "continuation"}],
        continued={"b": {"of": "a", "amount": 2}},
        budgets=[0, 4],
        donor_steps=8,
        native_steps=8,
        techniques={"lora": {}},
    )
    path = tmp_path_factory.mktemp("specs") / "tiny.yaml"
    path.write_text(yaml.safe_dump(made.model_dump(mode="json", exclude_none=True)))
    return path


@pytest.fixture(scope="module")
def done(spec_file, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """A study that was run."""
    folder = tmp_path_factory.mktemp("studies") / "tiny"
    return folder, start("run", spec_file, "--out", folder, "--workers", 1)


def test_a_run_prints_a_table_and_where_its_report_is(done):
    folder, ended = done
    assert ended.returncode == 0, ended.stderr
    assert "16 of 16 runs done, 0 failed." in ended.stdout
    page = Path(ended.stdout.split("Report: ")[1].strip())
    assert page.parent == folder
    assert "<html" in page.read_text()
    assert all(word in ended.stdout for word in ("lora", "sampled", "scratch", "ported", "native"))
    assert "16/16 runs" in ended.stderr
    assert not {"\r", "\x1b"} & set(ended.stderr)


def test_a_plan_is_one_json_object_on_standard_output(said, spec_file):
    ended = said("plan", spec_file, "--json", "--set", "seeds=5", "--no-measure")
    found = json.loads(ended.stdout)
    assert ended.returncode == 0
    assert "estimate" not in found
    assert found["runs"] == 2 * 2 * 5
    assert found["baseline_by_condition"] == {"scratch": 10, "native": 5, "host": 5}


def test_the_founding_study_is_planned_as_1440_runs_without_the_hub(said):
    ended = said("plan", "founding")
    assert ended.returncode == 0, ended.stderr
    assert "founding: 1,440 runs (ported 720, sampled 720)" in ended.stdout
    assert "baseline beside them: 680 (scratch 480, native 160, host 40)" in ended.stdout
    assert "cannot be estimated before all below is at hand" in ended.stdout


def test_a_plan_estimates_time_memory_and_disk(said, spec_file):
    ended = said("plan", spec_file)
    assert ended.returncode == 0, ended.stderr
    assert "with one worker on 1 thread of this machine" in ended.stdout
    assert "measuring lora on " in ended.stderr


def test_a_plan_refuses_two_names_for_the_same_run(said, spec_file):
    twice = "{origin: a, receiver: %s, relation: continuation}"
    hosts = yaml.safe_load(spec_file.read_text())["hosts"]
    given = [f"pairs=[{twice % 'b'}, {twice % 'c'}]", f"hosts.c={hosts['b']}"]
    ended = said("plan", spec_file, *(part for pair in given for part in ("--set", pair)))
    assert ended.returncode == 2
    assert "receiver 'b' and 'c'" in ended.stderr


def test_a_status_says_that_nothing_is_missing(said, done):
    found = json.loads(said("status", done[0], "--json").stdout)
    assert (found["planned"], found["done"], found["missing"]) == (16, 16, 0)
    assert "16 of 16 runs done" in said("status", done[0]).stdout


def test_a_report_is_written_again_and_summed_up_in_json(said, done):
    found = json.loads(said("report", done[0], "--json").stdout)
    assert Path(found["report"]).is_file()
    assert found["runs"] == {"done": 16, "failed": 0, "not_run": 0}


def test_a_report_can_be_corrected_on_the_test_texts(said, done, tmp_path):
    asked = ("report", done[0], "--corrected-on", "test", "--out", tmp_path / "other")
    assert said(*asked).returncode == 0
    own, other = (place / "results.md" for place in (done[0], tmp_path / "other"))
    assert "on the test texts themselves without labels" in other.read_text()
    assert "on training texts without labels" in own.read_text()
    rows = tmp_path / "rows.csv"
    said("export", done[0], "--out", rows)
    refused = said("report", rows, "--corrected-on", "test", "--out", tmp_path / "third")
    assert refused.returncode == 2
    assert "exported rows do not: give the folder" in refused.stderr


def test_figures_are_written_where_they_are_asked_for(said, done):
    folder, _ = done
    assert not list(folder.glob("*.png"))
    found = json.loads(said("report", folder, "--figures", "--json").stdout)
    assert sorted(found["figures"]) == sorted(map(str, folder.glob("*.png")))
    assert {Path(path).name for path in found["figures"]} >= {"heat-continuation.png"}


def test_a_report_knows_which_host_continues_which(done):
    from peftport.reports.stored import read_results

    hosts = {host["name"]: host for host in read_results(done[0]).facts["hosts"]}
    assert (hosts["b"]["parent"], hosts["b"]["continued"]) == ("a", 2)
    assert not {"parent", "continued"} & set(hosts["a"])


def test_an_export_has_the_columns_of_the_contract_in_every_format(said, done, tmp_path):
    import pandas as pd

    text = said("export", done[0], "--format", "csv").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 16
    assert {row["n_test"] for row in rows} == {"48"}
    for form, reader in (("parquet", pd.read_parquet), ("json", pd.read_json)):
        out = tmp_path / f"rows.{form}"
        ended = said("export", done[0], "--format", form, "--out", out)
        assert ended.returncode == 0, ended.stderr
        table = reader(out)
        assert tuple(table.columns) == COLUMNS
        assert [*table["run_id"]] == [row["run_id"] for row in rows]
        assert [*table["accuracy"]] == pytest.approx([float(row["accuracy"]) for row in rows])
    binary = start("export", done[0], "--format", "parquet", text=False).stdout
    assert len(pd.read_parquet(io.BytesIO(binary))) == 16
    assert len(json.loads(said("export", done[0], "--json").stdout)["rows"]) == 16


def test_running_again_has_nothing_to_do(said, done):
    ended = said("run", done[0], "--json")
    found = json.loads(ended.stdout)
    assert ended.returncode == 0
    assert (found["done"], found["recorded_now"], found["missing"]) == (16, 0, 0)


def test_ctrl_c_ends_a_run_in_time_with_130_and_running_again_goes_on(
    said, done, spec_file, tmp_path
):
    folder = tmp_path / "s"
    process = subprocess.Popen(
        [*COMMAND, "run", str(spec_file), "--out", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (folder / "study.sqlite").exists():
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the driver and its workers
    begun = time.monotonic()
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - begun < 5
    assert process.returncode == 130, err
    assert f"go on with: peftport study run {folder}" in out
    assert "Traceback" not in err
    ended = said("run", folder, "--json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["missing"] == 0
    assert figures(folder) == figures(done[0])


def test_what_does_not_fit_into_memory_ends_with_2_before_anything_is_written(
    said, spec_file, tmp_path, monkeypatch
):
    monkeypatch.setattr("peftport.porting.estimate.memory_at_hand", lambda: 1000.0)
    found = said("run", spec_file, "--out", tmp_path / "s", "--workers", 2)
    assert (found.returncode, found.stdout) == (2, "")
    for part in ("study tiny needs", "2 workers", "are free", "--ignore-memory"):
        assert part in found.stderr
    assert not (tmp_path / "s").exists()
    one = ("--set", "seeds=1", "--set", "conditions=[host]", "--ignore-memory")
    assert said("run", spec_file, "--out", tmp_path / "s", *one).returncode == 0


def test_failed_runs_end_with_1_and_say_where_to_look(said, spec_file, tmp_path):
    folder = tmp_path / "s"
    ended = said("run", spec_file, "--out", folder, "--set", "training.weight_decay=1.0e+30")
    assert ended.returncode == 1
    assert f"Why: peftport study status {folder}" in ended.stdout
    assert "was not finite" in said("status", folder).stdout
    rows = list(csv.DictReader(io.StringIO(said("export", folder).stdout)))
    failed = [row for row in rows if row["status"] == "failed"]
    assert len(rows) == 16
    assert failed
    assert all(row["error"] and row["accuracy"] == row["n_test"] == "" for row in failed)


def test_rates_are_chosen_on_validation_and_what_was_tried_is_kept(said, spec_file, tmp_path):
    arguments = ["tune", spec_file, "--seeds", 1, "--out", tmp_path / "rates"]
    found = json.loads(said(*arguments, "--rates", "0.01", "--json").stdout)
    assert found["learning_rates"] == {"lora": 0.01}
    ended = said(*arguments, "--rates", "0.01,1e-9")
    assert ended.returncode == 0, ended.stderr
    assert "learning rate 0.01, tested on validation" in ended.stderr
    both = json.loads(said(*arguments, "--rates", "0.01,1e-9", "--json").stdout)
    means = {each["learning_rate"]: each["mean"] for each in both["tried"]}
    best = max(sorted(means), key=means.__getitem__)
    assert both["learning_rates"] == {"lora": best}
    assert ended.stdout.rstrip().splitlines()[-1] == f"  learning_rates: {{lora: {best:g}}}"
    rows = list(csv.DictReader(io.StringIO(said("export", tmp_path / "rates" / "0.01").stdout)))
    assert {row["study"] for row in rows} == {"tiny-rate-0.01 (validation)"}
    assert {row["n_test"] for row in rows} == {"32"}
    assert {row["seed"] for row in rows} == {"2"}


def has_ray() -> bool:
    return importlib.util.find_spec("ray") is not None


def bad(spec_file: Path, folder: Path) -> dict[str, tuple[list[object], str]]:
    """Arguments that cannot be used, and words of the message."""
    return {
        "unknown preset": (["plan", "quik"], "Did you mean 'quick'?"),
        "missing file": (["plan", folder / "no.yaml"], "no.yaml is not a file"),
        "unknown key": (["plan", spec_file, "--set", "seds=3"], "Did you mean 'seeds'?"),
        "unknown technique": (
            ["plan", spec_file, "--set", "techniques={lra: {}}"],
            "unknown technique 'lra'. Did you mean 'lora'?",
        ),
        "unknown method": (
            ["run", spec_file, "--out", folder / "s", "--set", "methods=[copi]"],
            "Did you mean 'copy'?",
        ),
        "missing data": (
            ["run", spec_file, "--out", folder / "s", "--set", f"tasks.films={folder}/none"],
            "none",
        ),
        "missing parameter": (["plan", "founding-mini"], "needs --set hosts=VALUE"),
        "unknown executor": (
            ["run", spec_file, "--out", folder / "s", "--executor", "locl"],
            "Did you mean 'local'?",
        ),
        "an address for no cluster": (
            ["run", spec_file, "--out", folder / "s", "--address", "127.0.0.1:6379"],
            "--address belongs to --executor ray",
        ),
        "a cluster that does not answer": (
            [
                "run",
                spec_file,
                "--out",
                folder / "s",
                "--executor",
                "ray",
                "--address",
                "localhost:1",
            ],
            "--address localhost:1 does not answer" if has_ray() else "pip install 'peftport[ray]'",
        ),
        "unknown retry": (["run", spec_file, "--out", folder / "s", "--retry", "all"], "failed"),
        "no study": (["status", folder], "holds no study"),
        "no study to run": (["run", folder], "holds no study"),
        "no study to report": (["report", folder], "holds no study"),
        "no study to export": (["export", folder], "holds no study"),
        "unknown texts of a correction": (
            ["report", folder, "--corrected-on", "tests"],
            "Did you mean 'test'?",
        ),
        "another report in the study's place": (
            ["report", folder, "--corrected-on", "test"],
            "say with --out where it is to be written",
        ),
    }


@pytest.mark.parametrize("case", bad(Path(), Path()))
def test_bad_input_ends_with_2_and_one_message(said, spec_file, tmp_path, case):
    arguments, words = bad(spec_file, tmp_path)[case]
    ended = said(*arguments)
    assert ended.returncode == 2, ended.stderr
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_an_export_to_a_bad_place_ends_with_2_and_leaves_it_alone(said, done, tmp_path):
    (tmp_path / "there.csv").write_text("mine")
    for out, words in (
        (tmp_path / "there.csv", "exists already"),
        (tmp_path, "is a folder"),
        (tmp_path / "no" / "x.csv", "there is no folder"),
    ):
        ended = said("export", done[0], "--out", out)
        assert ended.returncode == 2
        assert words in ended.stderr
    assert (tmp_path / "there.csv").read_text() == "mine"
    assert said("export", done[0], "--format", "xlsx").returncode == 2


def test_a_report_takes_the_place_of_an_earlier_one_and_of_nothing_else(said, done, tmp_path):
    assert said("report", done[0], "--out", tmp_path / "own").returncode == 0
    assert said("report", done[0], "--out", tmp_path / "own").returncode == 0
    for name in ("index.html", "results.md", "results.tex"):
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        (folder / name).write_text("mine")
        ended = said("report", done[0], "--out", folder)
        assert ended.returncode == 2
        assert f"{folder / name} exists already and is of no report by peftport" in ended.stderr
        assert [file.name for file in folder.iterdir()] == [name]
        assert (folder / name).read_text() == "mine"


def test_a_report_of_rows_says_that_its_intervals_are_over_seeds_alone(said, done, tmp_path):
    said("export", done[0], "--out", tmp_path / "rows.csv")
    assert said("report", tmp_path / "rows.csv", "--out", tmp_path / "of-rows").returncode == 0
    told = (tmp_path / "of-rows" / "results.md").read_text()
    assert "intervals are over seeds only: rows do not say what was answered" in told
    assert "over seeds and test examples" in (done[0] / "results.md").read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no disk that is full")
@pytest.mark.parametrize("more", [(), ("--json",)])
def test_standard_output_that_cannot_be_written_is_one_message(done, more):
    with Path("/dev/full").open("w") as full:
        ended = start("status", done[0], *more, stdout=full)
    assert ended.returncode == 1
    assert ended.stderr == "error: standard output cannot be written: No space left on device.\n"


def test_a_study_goes_on_as_it_was_begun(said, done, spec_file):
    for arguments in (["--out", "elsewhere"], ["--set", "seeds=1"]):
        ended = said("run", done[0], *arguments)
        assert ended.returncode == 2
        assert f"{arguments[0]} belongs to a new study" in ended.stderr
    ended = said("run", spec_file, "--out", done[0], "--set", "seeds=1")
    assert ended.returncode == 2
    assert "with another 'seeds'" in ended.stderr


def test_help_and_the_verbs_import_no_torch():
    code = (
        "import sys; import peftport.cli.study; "
        "assert not {'torch', 'transformers', 'pandas', 'sqlite3'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
