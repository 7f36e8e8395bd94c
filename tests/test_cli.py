"""The command line: its names are a promise, its help is quick to load, its errors are one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from groundup.cli import cli
from groundup.flow import STAGES
from tests.helpers.raw import write_books

# Names may be added, never changed or taken away.
OPTIONS = {
    "init": {"--recipe"},
    "plan": {"--set"},
    "run": {"--out", "--until", "--redo", "--set", "--workers", "--ray"},
    "status": {"--watch", "--json"},
    "inspect": {
        "--dropped",
        "--document",
        "--duplicates",
        "--token",
        "--lines",
        "--kept",
        "--search",
        "--source",
    },
    "look": {"--out", "--files", "--megabytes"},
    "data": set(),
    "forget": {"--workers"},
    "diff": {"--json"},
    "evaluate": set(),
    "tune": {"--data", "--method"},
    "sample": set(),
    "report": {"--out"},
    "serve": {
        "--host",
        "--port",
        "--api-key-file",
        "--model",
        "--slots",
        "--queue",
        "--device",
        "--dtype",
    },
    "export": {"--format", "--model", "--type"},
    "verify": set(),
}


def groundup(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "groundup", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
        check=False,
    )


def test_every_promised_command_and_option_is_there() -> None:
    for name, options in OPTIONS.items():
        known = {text for parameter in cli.commands[name].params for text in parameter.opts}
        assert options <= known, name


def test_commands_are_listed_in_the_order_of_the_flow() -> None:
    names = list(cli.commands)
    assert [name for name in names if name in STAGES] == [
        stage for stage in STAGES if stage in names
    ]


def imported(module: str, names: tuple[str, ...]) -> str:
    """Return those of some modules that importing another one imports, as Python prints a list."""
    code = f"import sys, {module}; print([name for name in {names} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_help_imports_nothing_heavy() -> None:
    """0.3 s is the promise; what makes it true is that none of these is imported."""
    heavy = ("torch", "numpy", "pyarrow", "numba", "tqdm", "httpx", "fastapi", "jinja2")
    assert imported("groundup.cli", (*heavy, "matplotlib")) == "[]"


def test_the_flow_imports_the_stages_and_nothing_heavy() -> None:
    """`flow` names every stage, so a stage imports these only when it runs."""
    heavy = ("torch", "numba", "pyarrow", "tokenizers", "transformers")
    assert imported("groundup.flow", heavy) == "[]"


def test_a_run_that_stops_at_tokens_never_imports_torch(tmp_path: Path) -> None:
    """It would take as long as the data stages themselves on a small folder."""
    write_books(tmp_path / "books", 2)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[[source]]\nkind = "books"\npath = "books"\n')
    code = (
        "import sys\nfrom groundup.cli import cli\ncli(sys.argv[1:], standalone_mode=False)\n"
        "print([name for name in ('torch', 'trafilatura') if name in sys.modules])\n"
    )
    options = ["--until", "tokenize", "--workers", "1", "--out", str(tmp_path / "run")]
    command = [sys.executable, "-c", code, "run", str(recipe), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert (tmp_path / "run" / "tokenize" / "tokenizer.json").exists()


@pytest.mark.parametrize("own", [None, "ACTIVE"])
def test_threads_sleep_while_they_wait(own: str | None) -> None:
    """Set before torch is imported, which reads it then; what the user set stays."""
    code = "import os, sys, groundup; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": own} if own else {}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [own or "PASSIVE", "False"]


def test_inspect_is_asked_for_one_thing_at_a_time(tmp_path: Path) -> None:
    """What it would leave out could be taken for an answer."""
    done = CliRunner().invoke(cli, ["inspect", str(tmp_path), "--token", "0", "--lines"])
    assert done.exit_code == 2 and "one thing at a time" in done.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "missing.toml"],
        ["run", "bad.toml"],
        ["run", "good.toml", "--until", "trian"],
        ["run", "good.toml", "--out", "run"],
        ["run", "good.toml", "--ray", "127.0.0.1:1"],
        ["plan", "good.toml"],
        ["init", "missing"],
        ["look", "missing"],
        ["look", "empty"],
        ["init", "empty"],
        ["status", "nowhere"],
        ["inspect", "nowhere"],
        ["verify", "nowhere"],
        ["data", "export", "nowhere", "--to", "out"],
        ["forget", "nowhere", "0" * 32],
        ["diff", "nowhere", "nowhere"],
        ["sample", "nowhere", "The"],
        ["tune", "nowhere"],
        ["tune", "nowhere", "--data", "missing.csv", "--method", "lora"],
        ["export", "nowhere"],
        ["evaluate", "nowhere"],
        ["report", "nowhere"],
        ["serve", "nowhere", "--port", "0"],
    ],
    ids=" ".join,
)
def test_what_a_user_can_cause_is_one_line_and_a_non_zero_exit(
    arguments: list[str], tmp_path: Path
) -> None:
    (tmp_path / "bad.toml").write_text('[[source]]\npath = "x"\nkint = "books"\n')
    (tmp_path / "good.toml").write_text('[[source]]\npath = "not-there/*.txt"\n')
    (tmp_path / "empty").mkdir()
    done = groundup(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("groundup: "), done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_misspelt_option_exits_with_usage() -> None:
    assert groundup("run", "--worker", "2").returncode == 2
    assert (
        "exclude each other" in groundup("run", "x.toml", "--workers", "2", "--ray", "auto").stderr
    )
