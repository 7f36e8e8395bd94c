"""The command line: one command a stage, in flow order. Imports nothing heavy until a command needs
it.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from groundup import __version__
from groundup.errors import GroundupError, is_full_disk

if TYPE_CHECKING:
    from groundup.recipe import Recipe

STOPPED = 130
RUN_DIRECTORY = click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
RECIPE = click.argument("recipe", type=click.Path(path_type=Path))
SET = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a setting: train.steps=100.",
)


class InFlowOrder(click.Group):
    """Lists commands in the order in which they are defined, which is the order of the flow."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names as they were added."""
        return list(self.commands)


@click.group(
    cls=InFlowOrder,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__)
def cli() -> None:
    """From raw text to a language model: collect, refine, tokenize, train, evaluate, tune, export,
    report.
    """


@cli.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path), required=False)
@click.option(
    "--recipe",
    type=click.Path(path_type=Path),
    default=Path("recipe.toml"),
    show_default=True,
    help="Where to write it.",
)
@click.option("--example", metavar="NAME", help="Write a recipe that comes with groundup: starter.")
@click.option("--force", is_flag=True, help="Replace a recipe that is there.")
def init(directory: Path | None, recipe: Path, example: str | None, force: bool) -> None:
    """Look at the raw files in DIR and write a recipe for them."""
    from groundup.commands.examples import write_example
    from groundup.commands.init import write_recipe

    if directory is not None and example is None:
        click.echo(write_recipe(directory, recipe, force))
    elif example is not None and directory is None:
        click.echo(write_example(example, recipe, force))
    else:
        raise GroundupError("init wants a folder of raw files, or --example NAME: one of the two")


@cli.command()
@RECIPE
@SET
@click.option(
    "--price",
    type=float,
    default=0.0,
    help="Cost of this machine an hour, for the estimate of money.",
)
@click.option("--json", "as_json", is_flag=True, help="Print figures as JSON.")
def plan(recipe: Path, overrides: tuple[str, ...], price: float, as_json: bool) -> None:
    """Estimate tokens, parameters, memory, disk, hours and money; refuse what cannot fit."""
    from groundup.plan import make_plan

    loaded = _load(recipe, overrides)
    estimate = make_plan(loaded, price, Path("runs") / loaded.name)
    click.echo(estimate.json() if as_json else estimate.text())
    estimate.refuse()


@cli.command()
@RECIPE
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Run directory.  [default: runs/NAME]",
)
@click.option(
    "--until", metavar="STAGE", default="report", show_default=True, help="Last stage to run."
)
@click.option(
    "--redo",
    metavar="STAGE",
    multiple=True,
    help="Build a stage again; what it replaces moves aside.",
)
@SET
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Processes for data stages.  [default: cores]",
)
@click.option(
    "--ray",
    default="",
    metavar="ADDRESS",
    help="Do data stages on a Ray cluster instead: auto, or host:port.",
)
def run(
    recipe: Path,
    out: Path | None,
    until: str,
    redo: tuple[str, ...],
    overrides: tuple[str, ...],
    workers: int | None,
    ray: str,
) -> None:
    """Run a recipe from raw text to the report; only what changed is done again."""
    from groundup.flow import check_stage, run_flow

    if workers and ray:
        raise click.UsageError("--workers and --ray exclude each other")
    loaded = _load(recipe, overrides)
    for stage in (until, *redo):
        check_stage(stage)
    done = run_flow(loaded, out or Path("runs") / loaded.name, until, redo, workers, ray)
    if until == "report":
        _echo_summary(done.root)


@cli.command()
@RUN_DIRECTORY
@click.option("--watch", is_flag=True, help="Show it again every two seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print figures as JSON.")
def status(directory: Path, watch: bool, as_json: bool) -> None:
    """Say how far a run is."""
    from groundup.commands.status import show_status

    show_status(directory, watch, as_json)


@cli.command()
@RUN_DIRECTORY
@click.option(
    "--dropped", metavar="REASON", help="Show twenty random documents that were dropped for REASON."
)
@click.option(
    "--document", metavar="ID", help="Tell where a document came from, and where it went."
)
@click.option(
    "--duplicates",
    metavar="ID",
    help="Show the cluster of ID: what was kept, and what was dropped for it.",
)
@click.option(
    "--token",
    metavar="N",
    type=click.IntRange(min=0),
    help="Tell from which document training token N comes, and who read it.",
)
@click.option(
    "--lines",
    metavar="[SOURCE]",
    is_flag=False,
    flag_value="",
    help="Show the lines that were cut because SOURCE repeats them.",
)
def inspect(
    directory: Path,
    dropped: str | None,
    document: str | None,
    duplicates: str | None,
    token: int | None,
    lines: str | None,
) -> None:
    """Look into the data of a run: what was kept, what was dropped and why."""
    import shutil

    from groundup.commands import inspect as lineage

    if sum(asked is not None for asked in (dropped, document, duplicates, token, lines)) > 1:
        raise click.UsageError("ask for one thing at a time")
    width = shutil.get_terminal_size().columns
    if dropped is not None:
        text = lineage.describe_dropped(directory, dropped, width)
    elif document is not None:
        text = lineage.describe_document(directory, document, width)
    elif duplicates is not None:
        text = lineage.describe_duplicates(directory, duplicates, width)
    elif token is not None:
        text = lineage.describe_token(directory, token, width)
    elif lines is not None:
        text = lineage.describe_lines(directory, lines)
    else:
        text = lineage.overview(directory)
    _echo(text)


@cli.command()
@RUN_DIRECTORY
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Processes for data stages.  [default: cores]",
)
def forget(directory: Path, ids: tuple[str, ...], workers: int | None) -> None:
    """Take documents out of a run: out of its data, and of what quotes them; models that read them
    are named.
    """
    from groundup.commands.forget import forget as forget_documents

    _echo(forget_documents(directory, ids, workers))


@cli.command()
@click.argument("one", metavar="RUN_A", type=click.Path(path_type=Path))
@click.argument("other", metavar="RUN_B", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print figures as JSON.")
def diff(one: Path, other: Path, as_json: bool) -> None:
    """Say in which settings, documents and tokens two runs differ."""
    import json
    import shutil

    from groundup.commands.diff import compare, in_words

    found = compare(one, other)
    _echo(
        json.dumps(found, indent=1)
        if as_json
        else in_words(found, shutil.get_terminal_size().columns)
    )


@cli.command()
@RUN_DIRECTORY
def evaluate(directory: Path) -> None:
    """Evaluate the model of a run, if its evaluation is not fresh."""
    from groundup.flow import run_one

    run_one(directory, "evaluate")
    run_one(directory, "report")
    _echo_summary(directory)


@cli.command()
@RUN_DIRECTORY
@click.option(
    "--data",
    metavar="FILE",
    help="File, folder or glob to learn from.  [default: the run's own conversations]",
)
@click.option(
    "--method",
    type=click.Choice(["sft", "lora"]),
    help="All weights, or small matrices beside them.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Another setting of [tune]: epochs=5.",
)
@click.option(
    "--redo", is_flag=True, help="Tune again; what it replaces moves aside if it was expensive."
)
def tune(
    directory: Path, data: str | None, method: str | None, overrides: tuple[str, ...], redo: bool
) -> None:
    """Teach the best model of a run to answer, or to do a task, from conversations or a table of
    text and label.
    """
    from groundup.commands.tune import describe, recipe_by_hand, tune_by_hand
    from groundup.flow import run_one

    tune_by_hand(directory, recipe_by_hand(directory, data, method, overrides), redo)
    if (directory / "report").exists():
        run_one(directory, "report")
    click.echo(describe(directory))


@cli.command()
@RUN_DIRECTORY
@click.argument("prompt")
@click.option(
    "--tokens",
    type=click.IntRange(1, 100_000),
    default=100,
    show_default=True,
    help="Tokens to write at most.",
)
@click.option("--temperature", type=click.FloatRange(0, 10), default=0.8, show_default=True)
@click.option(
    "--top-p", type=click.FloatRange(0, 1, min_open=True), default=0.95, show_default=True
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=1, show_default=True)
@click.option(
    "--model",
    "which",
    default="",
    help="tuned, best, last or step-N.  [default: tuned if there is one, else best]",
)
@click.option("--chat", is_flag=True, help="Answer PROMPT, as a tuned model does.")
def sample(
    directory: Path,
    prompt: str,
    tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    which: str,
    chat: bool,
) -> None:
    """Continue PROMPT with the model of a run."""
    from groundup.commands.sample import continue_prompt

    for piece in continue_prompt(directory, prompt, tokens, temperature, top_p, seed, which, chat):
        click.echo(piece, nl=False)
    click.echo()


@cli.command()
@RUN_DIRECTORY
@click.option(
    "--format",
    "form",
    type=click.Choice(["hf", "gguf"]),
    default="hf",
    show_default=True,
    help="gguf is for llama.cpp.",
)
@click.option(
    "--model",
    "which",
    default="",
    help="tuned, best, last or step-N.  [default: tuned if there is one, else best]",
)
@click.option(
    "--type",
    "kind",
    type=click.Choice(["f32", "f16", "bf16", "q8_0"]),
    help="Numbers of a GGUF file.  [default: f16]",
)
def export(directory: Path, form: str, which: str, kind: str | None) -> None:
    """Export a model of a run, compared with the original before it is written; beside what the
    recipe exports.
    """
    from groundup.export.stage import by_hand, place
    from groundup.flow import run_one

    if kind and form != "gguf":
        raise GroundupError("--type is of GGUF files; add --format gguf")
    wanted = (form, (kind or "f16") if form == "gguf" else "", which)
    run_one(directory, "export", by_hand(directory, *wanted))
    run_one(directory, "report")
    click.echo(place(directory, *wanted))


@cli.command()
@click.argument(
    "directories", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path),
    default=Path("compare.html"),
    help="Comparison of several runs.",
)
def report(directories: tuple[Path, ...], out: Path) -> None:
    """Compute the report of a run again and print its summary; compare several."""
    from groundup.flow import run_one

    for directory in directories:
        run_one(directory, "report")
        _echo_summary(directory)
    if len(directories) > 1:
        from groundup.report.compare import compare
        from groundup.runtime.files import write_whole

        write_whole(out, compare(directories).encode("utf-8"))
        click.echo(out)


@cli.command()
@RUN_DIRECTORY
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="H",
    help="Address to listen on; others than loopback need a key.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    metavar="P",
    help="0 takes a free one.",
)
@click.option(
    "--api-key-file",
    type=click.Path(path_type=Path),
    metavar="F",
    help="Its first line is the key; or set GROUNDUP_API_KEY.",
)
@click.option(
    "--model",
    "which",
    default="",
    help="tuned, best, last or step-N.  [default: tuned if there is one, else best]",
)
@click.option(
    "--slots",
    type=click.IntRange(0, 1024),
    default=0,
    metavar="N",
    help="Completions at once.  [default: what fits, to 32]",
)
@click.option(
    "--queue",
    type=click.IntRange(0, 100_000),
    default=64,
    show_default=True,
    metavar="N",
    help="Completions that may wait.",
)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
)
@click.option(
    "--dtype", type=click.Choice(["auto", "float32", "bfloat16"]), default="auto", show_default=True
)
def serve(
    directory: Path,
    host: str,
    port: int,
    api_key_file: Path | None,
    which: str,
    slots: int,
    queue: int,
    device: str,
    dtype: str,
) -> None:
    """Serve the model of a run: the OpenAI protocol and a chat page."""
    from groundup.serve import check_extra

    check_extra()
    from groundup.serve.server import serve as serve_model

    serve_model(
        directory, host, port, api_key_file, which, slots, queue, device, dtype, say=click.echo
    )


@cli.command()
@RUN_DIRECTORY
def verify(directory: Path) -> None:
    """Prove what a run promises, one line a check; fails when one of them does."""
    from groundup.commands.verify import verify_run

    sys.exit(0 if verify_run(directory) else 1)


def _load(path: Path, overrides: tuple[str, ...]) -> Recipe:
    from groundup.recipe import load_recipe

    return load_recipe(path, overrides)


def _echo_summary(root: Path) -> None:
    from groundup.report.summary import following

    _echo((root / "report" / "summary.txt").read_text(encoding="utf-8") + "\n" + following(root))


def _echo(text: str) -> None:
    """Print a text that holds what somebody else wrote."""
    from groundup.runtime.progress import printable

    click.echo("\n".join(printable(line) for line in text.split("\n")))


def main() -> None:
    """Run the command line; what a user can cause is one line on stderr and a non-zero exit."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        _fail("stopped; what was finished is kept, run again to go on", STOPPED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except KeyboardInterrupt:
        _fail("stopped; what was finished is kept, run again to go on", STOPPED)
    except GroundupError as error:
        _fail(str(error), 1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except MemoryError:
        _fail("out of memory; run again with fewer --workers or a smaller model", 1)
    except Exception as error:
        _fail_by_kind(error)


def _interrupt(number: int, frame: FrameType | None) -> Any:
    raise KeyboardInterrupt


def _fail_system(error: OSError) -> None:
    """Say in one line what the operating system refused, such as a missing permission."""
    if os.environ.get("GROUNDUP_TRACEBACK"):
        raise error
    where = f"{error.filename}: " if error.filename else ""
    _fail(f"{where}{error.strerror or error}; what was finished is kept, run again to go on", 1)


def _fail_by_kind(error: Exception) -> None:
    if is_full_disk(error):
        _fail("the disk is full; free some space and run again, what was finished is kept", 1)
    elif isinstance(error, OSError):
        _fail_system(error)
    else:
        _fail_unexpected(error)


def _fail_unexpected(error: Exception) -> None:
    """Say in one line that groundup itself failed; the traceback is for those who ask for it."""
    if os.environ.get("GROUNDUP_TRACEBACK"):
        raise error
    text = " ".join(str(error).split())[:500]
    _fail(
        f"this is a fault of groundup: {type(error).__name__}: {text}; GROUNDUP_TRACEBACK=1 shows"
        " where",
        1,
    )


def _fail(message: str, code: int) -> None:
    sys.stderr.write(f"groundup: {message}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
