"""What all commands share: help, exit codes, errors."""

import json
import subprocess
import sys

import pytest

import mosaics
from mosaics.cli.app import main, one_line

COMMANDS = ("generate", "reconstruct", "evaluate", "info", "convert", "demo")


def test_help_of_everything_imports_no_torch():
    program = (
        "import sys; from mosaics.cli import main\n"
        f"codes = [main([*words, '--help']) for words in ([], *([name] for name in {COMMANDS!r}))]\n"
        "heavy = [name for name in ('torch', 'transformers', 'diffusers', 'datasets', 'PIL') if name in sys.modules]\n"
        "print(codes, heavy)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == f"{[0] * 7} []"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_has_examples_that_are_not_rewrapped(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0
    assert f"Examples:\n    mosaics {command}" in out


def test_the_version_is_the_packages(run):
    assert run("--version") == (0, f"{mosaics.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["paint"], "paint"),
        (["generate"], "PROMPT"),
        (["generate", "a lion", "--top_p", "2"], "--top_p"),
        (["generate", "a lion", "--num_candidates", "0"], "--num_candidates"),
        (["generate", "a lion", "--output", "lion.xyz"], "lion.xyz"),
        (["generate", "a lion", "--output", "folder", "--enlarge", "2"], "--enlarge"),
        (["generate", "a lion", "--class_label", "3"], "--class_label"),
        (["generate", "a lion", "--frobnicate"], "--frobnicate"),
        (["evaluate"], "--dataset"),
        (["evaluate", "--dataset", "x", "--metrics", "beauty"], "beauty"),
        (["evaluate", "--dataset", "x", "--dataset_options", "{"], "--dataset_options"),
        (["convert", "old.pt"], "--output"),
        (["convert"], "SOURCE"),
        (["demo", "--port", "99999"], "--port"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(run, arguments, named):
    code, out, err = run(*arguments)
    assert code == 2 and named in err and "Usage:" in err and not out


def test_a_failure_ends_with_1_and_one_line(run, tmp_path):
    code, out, err = run("info", tmp_path / "nothing")
    assert code == 1 and not out
    assert err.startswith("mosaics: error: ") and err.count("\n") == 1 and "nothing" in err


def test_the_traceback_is_there_for_those_who_ask(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        main(["info", str(tmp_path / "nothing"), "--traceback"])


def test_an_unexpected_error_says_its_kind_on_one_line():
    assert one_line(KeyError("x")) == "KeyError: 'x' (--traceback shows where)"
    assert one_line(ValueError("two\n  lines")) == "two lines"


def test_options_may_be_written_with_dashes(run, checkpoints, tmp_path):
    code, out, _ = run(
        "generate",
        "a lion",
        "--checkpoint",
        checkpoints / "dalle",
        "--num-candidates",
        2,
        "--output",
        tmp_path / "x.png",
    )
    assert code == 0 and "2 candidates" in out


def test_a_gradio_that_is_missing_is_named_with_the_extra(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    code, _, err = run("demo")
    assert code == 1 and "mosaics[demo]" in err


def test_the_formats_are_listed(run):
    code, out, _ = run("convert", "--list", "--json")
    formats = json.loads(out)
    assert code == 0 and "openai-dvae" in formats
    code, out, _ = run("convert", "--list")
    assert all(name in out for name in formats)


def test_files_of_no_known_format_are_refused_before_anything_is_written(run, tmp_path):
    (tmp_path / "old.pt").write_bytes(b"no weights")
    code, _, err = run("convert", tmp_path / "old.pt", "--output", tmp_path / "new")
    assert code == 1 and "no known format" in err and not (tmp_path / "new").exists()
    code, _, err = run("convert", tmp_path / "old.pt", "--output", tmp_path / "new", "--format", "jpeg")
    assert code == 2 and "jpeg" in err


def test_a_command_starts_in_a_process_of_its_own():
    result = subprocess.run([sys.executable, "-m", "mosaics.cli", "convert", "--list"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
