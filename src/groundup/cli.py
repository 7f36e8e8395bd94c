"""The command line: one command a stage in flow order, and commands to look into a run.

Nothing heavy is imported until a command needs it, so that `groundup --help` is quick.
"""

from __future__ import annotations

import functools
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from groundup._version import __version__
from groundup.errors import GroundupError, InterruptionError, is_full_disk, one_line
from groundup.export.formats import FORMATS
from groundup.runtime.progress import echo

if TYPE_CHECKING:
    from groundup.recipe import Recipe

INTERRUPTED = 130
PATH = click.Path(path_type=Path)
# Help texts and types that would not fit beside their options.
DEVICE_HELP = "Train there, not here: 4xa100-80gb, 8xh100, 1x4090, m3-max, ..."
SET_HELP = "Override a setting: train.steps=100."
MODEL_HELP = "tuned, best, last or step-N.  [default: tuned if there is one, else best]"
WORKERS_HELP = "Processes for data stages.  [default: cores]"
RAY_HELP = "Run data stages on a Ray cluster: auto, or host:port."
TOKEN_HELP = "The document of training token N, and the steps that read it."
LINES_HELP = "The lines that were cut because SOURCE repeats them."
KEPT_HELP = "N random kept documents of each source; with --search, the first N.  [default: 5]"
TUNE_HELP = "A setting of [tune]: epochs=5."
DATA_HELP = "File, folder or glob to learn from.  [default: the run's own conversations]"
TO_HELP = "Folder to write, or data set of the Hugging Face Hub."
TYPE_HELP = "Number format of a GGUF file.  [default: f16]"
COMPARE_HELP = "Comparison of several runs."
HOST_HELP = "Address to listen on; others than loopback need a key."
KEY_HELP = "Its first line is the key; or set GROUNDUP_API_KEY."
SLOTS_HELP = "Completions at once.  [default: as many as fit, up to 32]"
COUNT = click.IntRange(1, 1024)
PORT = click.IntRange(0, 65535)
SLOTS = click.IntRange(0, 1024)
QUEUE = click.IntRange(0, 100_000)
METHODS = click.Choice(["sft", "lora"])
EXPORTS = click.Choice(list(FORMATS))
DATA_FORMATS = click.Choice(["jsonl", "parquet", "hf"])
SPLITS = click.Choice(["train", "validation", "all"])
GGUF_TYPES = click.Choice(["f32", "f16", "bf16", "q8_0"])

# Arguments and options that several commands have.
RUN_DIRECTORY = click.argument("directory", metavar="DIR", type=PATH)
RECIPE = click.argument("recipe", type=PATH)
SET = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help=SET_HELP)
JSON = click.option("--json", "as_json", is_flag=True, help="Print figures as JSON.")
WORKERS = click.option("--workers", type=COUNT, metavar="N", help=WORKERS_HELP)
# An option that shows its default.
_option = functools.partial(click.option, show_default=True)
MODEL = click.option("--model", "which", default="", help=MODEL_HELP)


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
@click.argument("directory", metavar="DIR", type=PATH, required=False)
@_option("--recipe", type=PATH, default=Path("recipe.toml"), help="Where to write it.")
@click.option("--example", metavar="NAME", help="Write a recipe that comes with groundup: starter.")
@click.option("--force", is_flag=True, help="Replace a recipe that is there.")
def init(directory: Path | None, recipe: Path, example: str | None, force: bool) -> None:
    """Look at the raw files in DIR and write a recipe for them."""
    from groundup.commands.init import write_example, write_recipe

    if directory is not None and example is None:
        echo(write_recipe(directory, recipe, force))
    elif example is not None and directory is None:
        echo(write_example(example, recipe, force))
    else:
        raise GroundupError("init wants a folder of raw files, or --example NAME: one of the two")


@cli.command()
@click.argument("target", metavar="DIR|RECIPE", type=PATH)
@click.option(
    "--out", metavar="DIR", type=PATH, help="Run directory of the sample.  [default: in the cache]"
)
@_option("--files", type=click.IntRange(1, 100_000), default=200, help="Files of the sample.")
@_option("--megabytes", type=click.FloatRange(0.1, 10_000), default=20, help="Its size.")
def look(target: Path, **options: Any) -> None:
    """Show on a page what a sample of raw files would become, before anything is trained."""
    from groundup.commands.look import look as look_at

    echo(look_at(target, **options))


@cli.command()
@RECIPE
@SET
@click.option("--device", default="", metavar="NAME", help=DEVICE_HELP)
@click.option("--price", type=float, default=0.0, help="Cost of the machine per hour.")
@JSON
def plan(
    recipe: Path, overrides: tuple[str, ...], device: str, price: float, as_json: bool
) -> None:
    """Estimate tokens, parameters, memory, disk, hours and money; refuse what cannot fit."""
    from groundup.plan import make_plan

    loaded = _load(recipe, overrides)
    estimate = make_plan(loaded, price, Path("runs") / loaded.name, device=device)
    echo(estimate.json() if as_json else estimate.text())
    estimate.refuse()


@cli.command()
@RECIPE
@click.option("--out", metavar="DIR", type=PATH, help="Run directory.  [default: runs/NAME]")
@_option("--until", metavar="STAGE", default="report", help="Last stage to run.")
@click.option("--redo", metavar="STAGE", multiple=True, help="Build a stage again.")
@SET
@WORKERS
@click.option("--ray", default="", metavar="ADDRESS", help=RAY_HELP)
def run(recipe: Path, out: Path | None, overrides: tuple[str, ...], **options: Any) -> None:
    """Run a recipe from raw text to the report; only what changed is done again."""
    from groundup.flow import check_stages, run_flow

    if options["workers"] and options["ray"]:
        raise click.UsageError("--workers and --ray exclude each other")
    loaded = _load(recipe, overrides)
    check_stages(options["until"], *options["redo"])
    root = out or Path("runs") / loaded.name
    beside = recipe.parent / "runs" / loaded.name
    if out is None and not root.exists() and beside.exists() and recipe.parent != Path():
        echo(f"{beside} is a run of this name; --out {beside} goes on with it", error=True)
    done = run_flow(loaded, root, **options)
    if options["until"] == "report":
        _echo_summary(done.root)
    echo(f"run:   {done.root.absolute()}")


@cli.command()
@RUN_DIRECTORY
@click.option("--watch", is_flag=True, help="Update every two seconds.")
@JSON
def status(directory: Path, watch: bool, as_json: bool) -> None:
    """Show how far a run is."""
    from groundup.commands.status import show_status

    show_status(directory, watch, as_json)


@cli.command()
@RUN_DIRECTORY
@click.option("--dropped", metavar="REASON", help="Twenty random documents dropped for REASON.")
@click.option("--document", metavar="ID", help="Where a document came from, and where it went.")
@click.option("--duplicates", metavar="ID", help="The duplicates of a document, kept and dropped.")
@click.option("--token", metavar="N", type=click.IntRange(min=0), help=TOKEN_HELP)
@click.option("--lines", metavar="[SOURCE]", is_flag=False, flag_value="", help=LINES_HELP)
@click.option("--kept", metavar="[N]", type=COUNT, is_flag=False, flag_value=5, help=KEPT_HELP)
@click.option("--search", metavar="WORDS", help="Kept documents with WORDS, in any case.")
@click.option("--source", metavar="NAME", help="With --kept or --search: of this source only.")
def inspect(directory: Path, source: str | None, **options: Any) -> None:
    """Look into the data of a run: what was kept, what was dropped and why."""
    from groundup.commands import inspect as lineage

    kept, search = options.pop("kept"), options["search"]
    asked = {name: value for name, value in options.items() if value is not None}
    # --kept says how many of those that were searched.
    if kept is not None and search is None:
        asked["kept"] = kept
    if source is not None and not asked.keys() & {"kept", "search"}:
        raise click.UsageError("--source goes with --kept or --search")
    if len(asked) > 1:
        raise click.UsageError("ask for one thing at a time")
    show: dict[str, Callable[[Path, Any, int], str]] = {
        "dropped": lineage.describe_dropped,
        "document": lineage.describe_document,
        "duplicates": lineage.describe_duplicates,
        "token": lineage.describe_token,
        "lines": lambda root, name, _: lineage.describe_lines(root, name),
        "kept": lambda root, count, _: lineage.describe_kept(root, count, source),
        "search": lambda root, words, _: lineage.describe_found(root, words, kept, source),
    }
    width = shutil.get_terminal_size().columns
    for name, value in asked.items():
        echo(show[name](directory, value, width))
    if not asked:
        echo(lineage.overview(directory))


@cli.group(cls=InFlowOrder)
def data() -> None:
    """The kept documents of a run, for other programs."""


@data.command("export")
@RUN_DIRECTORY
@click.option("--to", metavar="DIR|hf://OWNER/NAME", required=True, help=TO_HELP)
@_option("--format", "form", type=DATA_FORMATS, default="parquet", help="hf has a README, too.")
@_option("--split", type=SPLITS, default="all")
@click.option("--source", metavar="NAME", help="Of this source only.")
@click.option("--compress", type=click.Choice(["gzip", "zstd"]), help="Compress JSON lines.")
@click.option("--force", is_flag=True, help="Replace an earlier export.")
@click.option("--public", is_flag=True, help="Everybody may read the data set of the Hub.")
def data_export(directory: Path, split: str, compress: str | None, **options: Any) -> None:
    """Write the kept documents of a run as JSON lines, Parquet or a Hugging Face data set."""
    from groundup.artifacts.corpus import VERDICTS
    from groundup.commands.data_export import export_data

    chosen = next((name for name in VERDICTS if name == split), None)
    echo(export_data(directory, split=chosen, compress=compress or "", **options))


@cli.command()
@RUN_DIRECTORY
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@WORKERS
def forget(directory: Path, ids: tuple[str, ...], workers: int | None) -> None:
    """Delete documents from the data of a run and from what quotes them.

    Models that were trained on them are named.
    """
    from groundup.commands.forget import forget as forget_documents

    echo(forget_documents(directory, ids, workers))


@cli.command()
@click.argument("one", metavar="RUN_A", type=PATH)
@click.argument("other", metavar="RUN_B", type=PATH)
@JSON
def diff(one: Path, other: Path, as_json: bool) -> None:
    """Show in which settings, documents and tokens two runs differ."""
    from groundup.commands.diff import compare_runs, format_comparison

    table, width = compare_runs(one, other), shutil.get_terminal_size().columns
    echo(json.dumps(table, indent=1) if as_json else format_comparison(table, width))


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
@click.option("--data", metavar="FILE", help=DATA_HELP)
@click.option("--method", type=METHODS, help="Train all weights, or low-rank adapters.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help=TUNE_HELP)
@click.option("--redo", is_flag=True, help="Tune again.")
def tune(directory: Path, redo: bool, **options: Any) -> None:
    """Teach the best model of a run to answer, or to do a task, from conversations or a table of
    text and label.
    """
    from groundup.commands.tune import describe_tuning, tune_by_hand, tuning_recipe
    from groundup.flow import run_one

    tune_by_hand(directory, tuning_recipe(directory, **options), redo)
    if (directory / "report").exists():
        run_one(directory, "report")
    echo(describe_tuning(directory))


@cli.command()
@RUN_DIRECTORY
@click.argument("prompt")
@_option("--tokens", type=click.IntRange(1, 100_000), default=100, help="Most tokens to write.")
@_option("--temperature", type=click.FloatRange(0, 10), default=0.8)
@_option("--top-p", type=click.FloatRange(0, 1, min_open=True), default=0.95)
@_option("--seed", type=click.IntRange(0, 2**63 - 1), default=1)
@MODEL
@click.option("--chat", is_flag=True, help="Answer PROMPT, as a tuned model does.")
def sample(directory: Path, **options: Any) -> None:
    """Continue PROMPT with the model of a run."""
    from groundup.commands.sample import continue_prompt

    for piece in continue_prompt(directory, **options):
        echo(piece, end="")
    echo()


@cli.command()
@RUN_DIRECTORY
@_option("--format", "form", type=EXPORTS, default="hf", help="gguf is for llama.cpp.")
@MODEL
@click.option("--type", "kind", type=GGUF_TYPES, help=TYPE_HELP)
def export(directory: Path, form: str, which: str, kind: str | None) -> None:
    """Export a model of a run, in addition to what the recipe exports.

    The export is compared with the model before it is written.
    """
    from groundup.export.stage import by_hand, place
    from groundup.flow import run_one

    if kind and form != "gguf":
        raise GroundupError("--type is of GGUF files; add --format gguf")
    kind = (kind or "f16") if form == "gguf" else ""
    run_one(directory, "export", by_hand(directory, form, kind, which))
    run_one(directory, "report")
    echo(place(directory, form, kind, which))


@cli.command()
@click.argument("directories", metavar="DIR...", nargs=-1, required=True, type=PATH)
@click.option("--out", metavar="FILE", type=PATH, default="compare.html", help=COMPARE_HELP)
def report(directories: tuple[Path, ...], out: Path) -> None:
    """Compute the report of a run again and print its summary; compare several."""
    from groundup.flow import run_one

    for directory in directories:
        run_one(directory, "report")
        _echo_summary(directory)
    if len(directories) > 1:
        from groundup.report.compare import compare_reports
        from groundup.runtime.files import write_whole

        write_whole(out, compare_reports(directories).encode("utf-8"))
        echo(out)


@cli.command()
@RUN_DIRECTORY
@_option("--host", default="127.0.0.1", metavar="H", help=HOST_HELP)
@_option("--port", type=PORT, default=8000, metavar="P", help="0 takes a free one.")
@click.option("--api-key-file", "key_file", type=PATH, metavar="F", help=KEY_HELP)
@MODEL
@click.option("--slots", type=SLOTS, default=0, metavar="N", help=SLOTS_HELP)
@_option("--queue", type=QUEUE, default=64, metavar="N", help="Completions that may wait.")
@_option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@_option("--dtype", type=click.Choice(["auto", "float32", "bfloat16"]), default="auto")
def serve(directory: Path, **options: Any) -> None:
    """Serve the model of a run: the OpenAI protocol and a chat page."""
    from groundup.serve import check_extra

    check_extra()
    from groundup.serve.server import serve as serve_model

    serve_model(directory, **options)


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
    from groundup.report.stage import next_commands

    summary = (root / "report" / "summary.txt").read_text(encoding="utf-8")
    echo(f"{summary}\n{next_commands(root)}")


def main() -> None:
    """Run the command line; what a user can cause is one line on stderr and a non-zero exit."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        cli(standalone_mode=False)
    except (KeyboardInterrupt, click.exceptions.Abort):
        _fail("interrupted; completed work is saved, run the same command to resume", INTERRUPTED)
    except click.ClickException as error:
        usage = io.StringIO()
        error.show(usage)
        echo(usage.getvalue(), end="", error=True)
        sys.exit(error.exit_code)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except InterruptionError as error:
        _fail(str(error), INTERRUPTED)
    except GroundupError as error:
        _fail(str(error))
    except BrokenPipeError:
        # The reader of a pipe has closed it; nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except MemoryError:
        _fail("out of memory; run again with fewer --workers or a smaller model")
    except Exception as error:
        if is_full_disk(error):
            _fail("the disk is full; completed work is saved, free some space and run again")
        if os.environ.get("GROUNDUP_TRACEBACK"):
            raise
        if isinstance(error, OSError):
            where = f"{error.filename}: " if error.filename else ""
            _fail(f"{where}{error.strerror or error}; completed work is saved, run again to resume")
        text = one_line(error, 500)
        _fail(
            f"this is a fault of groundup: {type(error).__name__}: {text}; GROUNDUP_TRACEBACK=1"
            " shows where"
        )


def _fail(message: str, code: int = 1) -> NoReturn:
    echo(f"groundup: {' '.join(message.split())}", error=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
