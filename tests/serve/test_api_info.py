"""Health, info, metrics, the files of the page, and its prompt suggestions."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.helpers.refined import refined_run
from tests.helpers.served import ENDLESS, serving_of

from groundup.artifacts.document import DOCUMENT, TableWriter
from groundup.runtime.store import Step
from groundup.serve.app import PAGE, SUGGESTION_LENGTH, suggest_prompts
from groundup.serve.server import running


def metrics(url: str) -> dict[str, float]:
    answer = httpx.get(url + "metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    samples = (
        sample
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    )
    return {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for sample in samples
    }


def test_metrics_count_requests_and_tokens(served: Path) -> None:
    with running(serving_of(served)) as url:
        before = metrics(url)
        body = {"prompt": ["the cat", "a"], "n": 2, "max_tokens": 10, "logit_bias": ENDLESS}
        usage = httpx.post(url + "v1/completions", json=body, timeout=60).json()["usage"]
        httpx.post(url + "v1/completions", json={"prompt": 1})
        httpx.get(url + "../../etc/passwd")
        httpx.request("BREW", url + "x" * 100)
        httpx.get(url + "info", headers={"Host": "example.org"})
        after = metrics(url)
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert grown["groundup_generated_tokens_total"] == usage["completion_tokens"] == 40
    # The engine computes a prompt once for each of its choices.
    assert grown["groundup_prompt_tokens_total"] == 2 * usage["prompt_tokens"]
    assert grown["groundup_time_to_first_token_seconds_count"] == 4
    assert grown["groundup_time_per_token_seconds_count"] >= 4
    assert (
        grown["groundup_requests_total /v1/completions 200"]
        == grown["groundup_requests_total /v1/completions 400"]
        == 1
    )
    # Unknown paths and methods create no new time series.
    assert {name for name in after if name.startswith("groundup_requests_total other")} == {
        "groundup_requests_total other 404",
        "groundup_requests_total other 403",
    }
    assert (
        after["groundup_running"] == after["groundup_waiting"] == 0 and after["groundup_slots"] == 4
    )
    assert grown["groundup_completions_total length"] == 4


def test_info_describes_the_model_for_the_page(live: str) -> None:
    about = httpx.get(live + "info").json()
    assert {"run", "model", "context", "tuned", "sampling", "prompts"} <= set(about)
    assert about["prompts"] and all(
        set(prompt) == {"text", "kind", "mode"} for prompt in about["prompts"]
    )
    start = {
        "prompt": about["prompts"][0]["text"],
        "model": about["model"],
        **about["sampling"],
        "max_tokens": 2,
    }
    assert httpx.post(live + "v1/completions", json=start).status_code == 200
    assert not any(
        word in httpx.get(live + "info").text for word in ("/tmp", "/home", str(Path.cwd()))
    )


@pytest.mark.parametrize("path", ["/", *sorted(f"/{file.name}" for file in PAGE.iterdir())])
def test_page_files_are_served_unchanged(live: str, path: str) -> None:
    answer = httpx.get(live.rstrip("/") + path)
    assert (
        answer.status_code == 200
        and answer.content == (PAGE / (path[1:] or "index.html")).read_bytes()
    )
    kind = {"": "text/html", ".html": "text/html", ".css": "text/css", ".js": "text/javascript"}[
        Path(path).suffix
    ]
    assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
    assert httpx.head(live.rstrip("/") + path).headers["content-length"] == str(len(answer.content))


HOSTILE = (
    "A\x1b[31mred\x1b[0m \u202eright to left\u2066 \x00 zero\u200b width \ud7ff and a long line"
    " that goes on so that it is one"
)


def write(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    with TableWriter(folder / "documents.parquet", DOCUMENT) as writer:
        for number, row in enumerate(rows):
            writer.add({"id": f"{number:032x}", "source": "x", "record": number} | row, 10)
    return {"documents": len(rows)}


def turns(*said: str) -> list[dict[str, str]]:
    return [
        {"role": "user" if number % 2 == 0 else "assistant", "content": text}
        for number, text in enumerate(said)
    ]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Held-out documents of two text sources and one source of conversations."""
    import numpy as np

    line = "It was a bright cold day in April, and the clocks were striking thirteen; "
    texts = {
        "a.1": [line + str(n) for n in range(9)],
        "b.1": ["TITLE\n\n" + line + "b", HOSTILE, ""],
        "c.1": ["x"] * 4,
    }
    run = refined_run(
        tmp_path,
        {
            name: [(text, 2 if n % 3 else 1) for n, text in enumerate(group)]
            for name, group in texts.items()
        },
    )
    talks = [
        turns("What is\x1b[2J a cat?", "An animal."),
        turns("x" * 500, "Long."),
        turns("Training only", "Yes."),
        turns("Who are you?", "A model."),
    ]
    talk = run.store.build(
        Step("refine/shard", "c.1", 2),
        write,
        {"rows": [{"text": "t", "turns": turns_} for turns_ in talks]},
    )
    view = run.store.view("refine")
    assert view is not None
    links = {
        str(path.relative_to(view.path)): path
        for path in view.path.rglob("*.*")
        if path.name not in ("manifest.json", "c.1.parquet", "c.1.npy")
    }
    np.save(talk.path.parent / "c.npy", np.array([2, 2, 1, 2], np.uint8))
    links |= {
        "documents/c.1.parquet": talk.path / "documents.parquet",
        "split/c.1.npy": talk.path.parent / "c.npy",
    }
    others = [
        artifact
        for entry in view.manifest["artefacts"]
        if entry["name"] != "c.1" and (artifact := run.store.artifact(entry)) is not None
    ]
    run.store.publish("refine", links, [*others, talk])
    return tmp_path


def test_suggestions_are_short_printable_and_from_held_out_data(run: Path) -> None:
    suggestions = suggest_prompts(run)
    assert [prompt.text for prompt in suggestions if prompt.mode == "chat"] == [
        "What is [2J a cat?",
        "Who are you?",
    ]
    rest = [prompt for prompt in suggestions if prompt.mode == "complete"]
    assert {prompt.kind for prompt in rest} == {"a", "b"} and len(rest) <= 6
    for prompt in suggestions:
        assert prompt.text.isprintable() and 3 <= len(prompt.text) <= SUGGESTION_LENGTH


def test_no_suggestions_without_data(tmp_path: Path) -> None:
    assert suggest_prompts(tmp_path) == []
