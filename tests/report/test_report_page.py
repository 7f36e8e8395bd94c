"""Test the finished report: page, card and summary show the figures of report.json."""

import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest
import yaml
from lxml import html
from tests.helpers.harmless import assert_harmless

from groundup.flow import run_one
from groundup.model.config import ModelConfig
from groundup.report.card import summary
from groundup.report.figures import MODEL_SIZES, metric_lines, parameter_parts
from groundup.report.formatting import formatted, in_words, more
from groundup.report.gather import gather_content, gather_facts, merge
from groundup.report.page import render_page
from groundup.report.stage import FILES, next_commands, write_files
from groundup.runtime.sealed import Ledger

SECTIONS = (
    "data",
    "tokenizer",
    "architecture",
    "training",
    "evaluation",
    "tuning",
    "exports",
    "cost",
    "origins",
)


@pytest.fixture(scope="module")
def report(tiny_run: Path) -> dict[str, Any]:
    return json.loads((tiny_run / "report" / "report.json").read_text())


@pytest.fixture(scope="module")
def page(tiny_run: Path) -> Any:
    return html.fromstring((tiny_run / "report" / "index.html").read_bytes())


def shown(page: Any, name: str) -> list[str]:
    return [node.text_content() for node in page.xpath(f'//*[@data-figure="{name}"]')]


def test_every_number_is_the_figure_of_report_json(page: Any, report: dict[str, Any]) -> None:
    marks = page.xpath("//*[@data-figure]")
    assert len(marks) > len(report["figures"]) > 300
    for mark in marks:
        figure = report["figures"][mark.get("data-figure")]
        assert mark.text_content() == formatted(figure["value"], mark.get("data-form"))
        assert mark.get("title") == f"{mark.get('data-figure')}, from {figure['from']}"


def test_one_more_is_singular() -> None:
    assert (more(1, "source"), more(1_200, "reason")) == ("1 more source", "1,200 more reasons")


def test_the_appendix_lists_all_of_report_json(page: Any, report: dict[str, Any]) -> None:
    listed = {
        mark.get("data-figure") for mark in page.xpath('//section[@id="origins"]//*[@data-figure]')
    }
    assert listed == {
        name for name, figure in report["figures"].items() if figure["value"] is not None
    }
    for details in page.xpath('//section[@id="origins"]//details[dl[starts-with(@id, "o")]]'):
        origin = details.xpath("./summary/code")[0].text_content()
        assert {
            report["figures"][mark.get("data-figure")]["from"]
            for mark in details.xpath(".//*[@data-figure]")
        } == {origin}


def test_the_page_says_what_cleaning_hid_and_repaired(tiny_run: Path, page: Any) -> None:
    """By source and step, from the manifest of the refined documents."""
    facts = json.loads((tiny_run / "refine" / "manifest.json").read_text())["facts"]["sources"]
    read: dict[str, dict[str, str]] = {}
    for table in page.xpath("//section[@id='data']//div[contains(@aria-label, 'by step')]/table"):
        steps = table.xpath("thead//th/text()")[1:]
        for row in table.xpath("tbody/tr"):
            cells = zip(steps, row.xpath("td/text()"), strict=True)
            read.setdefault(row.xpath("string(th)"), {}).update(cells)
    steps = {step for counts in facts.values() for step in counts["changed"]}
    assert "e-mail addresses" in steps and set(read) == set(facts)
    for name, counts in facts.items():
        assert read[name] == {step: f"{counts['changed'].get(step, 0):,}" for step in steps}


def test_numbers_are_those_of_the_files_of_the_run(tiny_run: Path, page: Any) -> None:
    """Reads the page and the files without any code of the report."""
    lines = [
        json.loads(line) for line in (tiny_run / "train" / "metrics.jsonl").read_text().splitlines()
    ]
    assert set(shown(page, "train.steps")) == {str(max(line["step"] for line in lines))}
    best = min(line["validation_loss"] for line in lines if "validation_loss" in line)
    assert f"{best:.3f}" in shown(page, "train.validation_loss.best")
    evaluation = json.loads((tiny_run / "evaluate" / "evaluation.json").read_text())
    for source, figures in evaluation["validation"]["model"]["sources"].items():
        assert f"{figures['bits_per_byte']:.3f}" in shown(
            page, f"evaluate.model.bits_per_byte.{source}"
        )


def test_parameters_by_part_are_those_on_disk(tiny_run: Path, report: dict[str, Any]) -> None:
    weights = next(
        (tiny_run / "train" / "checkpoints").glob("step-*/model.safetensors")
    ).read_bytes()
    header = json.loads(weights[8 : 8 + struct.unpack("<Q", weights[:8])[0]])
    sizes: dict[str, int] = dict.fromkeys(parameter_parts_names(report), 0)
    for name, entry in header.items():
        if name != "__metadata__":
            count = 1
            for length in entry["shape"]:
                count *= length
            words = {
                "embed": "embedding",
                "norm": "norms",
                "self_attn": "attention",
                "mlp": "feed_forward",
            }
            sizes[next(part for word, part in words.items() if word in name)] += count
    figures = report["figures"]
    assert sizes == {part: figures[f"model.parameters.{part}"]["value"] for part in sizes}
    assert sum(sizes.values()) == figures["model.parameters"]["value"]


def parameter_parts_names(report: dict[str, Any]) -> list[str]:
    sizes = {name: report["figures"][f"model.{name}"]["value"] for name in MODEL_SIZES}
    config = ModelConfig(**sizes)
    assert sum(parameter_parts(config).values()) == config.parameter_count()
    return list(parameter_parts(config))


def test_the_page_begins_with_a_sentence(page: Any) -> None:
    lead = " ".join(page.xpath('//p[@class="lead"]')[0].text_content().split())
    assert re.fullmatch(
        r"A language model of [\d.,]+( [kM])? parameters, trained from scratch on \d+ sources? of"
        r" text\.",
        lead,
    ), lead


def test_every_section_is_in_the_contents(page: Any) -> None:
    assert tuple(section.get("id") for section in page.xpath("//section")) == SECTIONS
    assert [link.get("href") for link in page.xpath("//nav//a")] == [
        f"#{name}" for name in SECTIONS
    ]
    assert not page.xpath('//*[@class="told"]'), page.xpath('//*[@class="told"]')[0].text_content()


def test_every_link_has_a_target_and_ids_are_unique(page: Any) -> None:
    ids = page.xpath("//@id")
    assert len(ids) == len(set(ids))
    targets = set(page.xpath("//a/@href")) | {
        f"#{name}" for name in re.findall(r"url\(#([^)]+)\)", html.tostring(page).decode())
    }
    assert targets <= {f"#{name}" for name in ids}


def test_the_page_loads_nothing(page: Any) -> None:
    assert_harmless(page)
    assert "http://" not in "".join(page.xpath("//@xmlns"))
    assert not page.xpath('//meta[@http-equiv="refresh"]')


def test_equal_runs_give_equal_bytes(tiny_run: Path, tmp_path: Path) -> None:
    report = merge(gather_facts(tiny_run, "tiny"), gather_content(tiny_run, 1))
    write_files(tmp_path, report, metric_lines(tiny_run))
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (tiny_run / "report" / name).read_bytes(), name


def test_no_path_of_this_machine_is_in_the_page(tiny_run: Path) -> None:
    for name in FILES:
        assert str(tiny_run.parent) not in (tiny_run / "report" / name).read_text(), name


def test_a_second_report_is_fresh(run_copy: Path) -> None:
    root = run_copy.parent / "runs" / "tiny"
    run_one(root, "report")
    assert Ledger(root / "ledger.jsonl").events()[-1]["event"] == "fresh"


def test_examples_are_in_the_lists_they_are_shown_for(
    tiny_run: Path, report: dict[str, Any]
) -> None:
    import pyarrow.dataset as ds

    def rows(folder: str, *columns: str) -> list[dict[str, Any]]:
        return (
            ds.dataset(sorted(map(str, (tiny_run / folder).glob("*.parquet"))))
            .to_table(columns=list(columns))
            .to_pylist()
        )

    lists = [
        row
        for stage in ("collect", "refine")
        for row in rows(f"{stage}/dropped", "id", "reason", "duplicate_of")
    ]
    reasons = {(row["id"], row["reason"]): row["duplicate_of"] for row in lists}
    texts = {row["id"]: row["text"] for row in rows("collect/documents", "id", "text")}
    kept = {row["id"]: row["text"] for row in rows("refine/documents", "id", "text")}
    examples = report["examples"]
    assert {row["reason"] for row in examples["dropped"]} >= {"malformed"}
    assert {row["source"] for row in examples["left_out"]} == {
        row["source"] for row in rows("refine/dropped", "source")
    }
    for row in examples["dropped"] + examples["left_out"] + examples["duplicates"]:
        assert (row["id"], row["reason"]) in reasons
        assert texts.get(row["id"], "").startswith(row["text"].removesuffix(" …"))
    for row in examples["duplicates"]:
        assert row["kept"]["id"] == reasons[row["id"], row["reason"]]
    assert {row["source"] for row in examples["kept"]} == {
        "books",
        "wikipedia",
        "web",
        "code",
        "talk",
    }
    for row in examples["kept"]:
        assert kept[row["id"]].startswith(row["text"].removesuffix(" …"))
        assert not any(name == row["id"] for name, _ in reasons)


def test_distributions_are_those_of_quality_json(
    tiny_run: Path, page: Any, report: dict[str, Any]
) -> None:
    """Every source has its histograms; medians and shares are those that refine wrote."""
    written = json.loads((tiny_run / "refine" / "quality.json").read_text())["sources"]
    table = report["distributions"]
    assert table["from"] == "refine/quality.json"
    assert list(table["sources"]) == list(written)
    for name, source in written.items():
        assert table["sources"][name]["measures"] == source["measures"]
        assert report["figures"][f"refine.lost.{name}"]["value"] == source["lost"]
        median = source["measures"]["bytes"]["kept"]["quantiles"][1]
        assert set(shown(page, f"refine.median.bytes.kept.{name}")) >= {formatted(median, "short")}
        for measure in source["measures"]:
            assert len(page.xpath(f'//*[name()="svg"][@aria-label="{measure} of {name}"]')) == 1
        for reason, counts in source["dropped"].items():
            assert set(shown(page, f"refine.dropped_by.{name}@{reason}")) >= {
                f"{counts['documents']:,}"
            }


def test_the_card_shows_the_figures_of_report_json(tiny_run: Path, report: dict[str, Any]) -> None:
    card = (tiny_run / "report" / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    table = yaml.safe_load(front)
    assert table["library_name"] == "transformers"
    assert table["pipeline_tag"] == "text-generation"
    rows = re.findall(r"^\| .+? \| (.+?) \| `(.+?)` \| `(.+?)` \|$", body, re.MULTILINE)
    assert len(rows) > 8
    for text, name, origin in rows:
        figure = report["figures"][name]
        assert origin == figure["from"]
        assert text in {
            formatted(figure["value"], form)
            for form in ("count", "three", "one", "share", "seconds")
        }
    for source in report["sources"]:
        assert re.search(rf"^\| {source['name']} \| {source['kind']} \|", body, re.MULTILINE)


def answers(markup: str) -> dict[str, str]:
    """Return what the first screen of a page says, by question."""
    rows = html.fromstring(markup).xpath('//dl[@class="brief"]/div')
    return {row.xpath("string(dt)"): " ".join(row.xpath("string(dd)").split()) for row in rows}


def test_the_first_screen_says_what_went_wrong(report: dict[str, Any]) -> None:
    """Two sources gave nothing: no file of one could be read, no document of the other is kept."""
    figures = dict(report["figures"])

    def set_figures(**values: float) -> None:
        for name, value in values.items():
            name = name.replace("__", ".").replace("_AT_", "@unsupported-format")
            figures[name] = {"value": value, "unit": "", "from": "collect/manifest.json"}

    set_figures(collect__documents__web=0, collect__files__web=3, tokens__kept__documents__web=0)
    for name in [name for name in figures if "dropped_by.web@" in name]:
        del figures[name]
    set_figures(collect__dropped_by__web_AT_=3, **{"collect__dropped__unsupported-format": 3})
    set_figures(tokens__kept__documents__code=0)
    read = figures["collect.documents.code"]["value"]
    set_figures(train__steps_planned=figures["train.steps"]["value"] + 6)
    changed = report | {"figures": figures}
    wrong = answers(render_page(changed, []))["What went wrong"]
    assert "Source web: nothing read: 3 files, all unsupported-format." in wrong
    assert f"Source code: nothing kept: {read} documents" in wrong
    assert "Training is at step 6 of 12." in wrong
    document = html.fromstring(render_page(changed, []))
    web = document.xpath('//summary[starts-with(normalize-space(), "web ")]')[0].text_content()
    assert web == "web nothing read: 3 files, all unsupported-format"
    assert "0 of 0" not in document.text_content()
    assert "web: nothing read: 3 files, all unsupported-format" in summary(changed)


def test_the_first_screen_says_how_good_the_model_is(report: dict[str, Any], page: Any) -> None:
    shown = answers(html.tostring(page).decode())
    bits, trigrams = (
        report["figures"][f"evaluate.{name}.bits_per_byte"]["value"]
        for name in ("model", "trigram")
    )
    judged = "better" if bits < trigrams else "no better"
    good = f"bits per byte of text that it has not seen, {judged} than a model that counts trigrams"
    assert good in shown["How good it is"]
    assert f"({trigrams:.3f})" in shown["How good it is"]
    assert "books" in shown["What it is made of"]
    assert "Nothing that the run recorded." in shown["What went wrong"]


def test_one_logged_step_draws_no_empty_axes(report: dict[str, Any]) -> None:
    line = {"step": 3, "loss": 6.0, "tokens": 9, "seconds": 1.0, "learning_rate": 0.1}
    few = html.fromstring(render_page(report, [line, {"step": 3, "validation_loss": 6.1}]))
    assert not few.xpath('//section[@id="training"]//*[name()="svg"]')
    assert "Too few steps" in few.xpath('string(//section[@id="training"])')
    more = html.fromstring(render_page(report, [line, line | {"step": 4}]))
    assert len(more.xpath('//section[@id="training"]//*[name()="svg"]')) == 3


def test_settings_are_shown_in_words(page: Any, report: dict[str, Any]) -> None:
    text = page.text_content()
    assert "{'" not in text and "chain " not in text
    machine = next(e for e in report["training"]["events"] if e["kind"] == "machine")["words"]
    assert machine.startswith("device cpu, threads ")
    assert "batch_tokens" not in html.tostring(page.xpath('//section[@id="training"]')[0]).decode()
    assert in_words({"batch_tokens": [1, 2], "compile": False, "x": {}}) == (
        "batch tokens 1, 2, compile no, x none"
    )
    assert in_words(88304143249.6) == "88.3 G"


def test_the_promise_of_equal_weights_is_limited_to_the_cpu(page: Any) -> None:
    assert "proved on the CPU only" in page.xpath('string(//section[@id="origins"])')


def test_next_commands_open_the_page_and_the_chat(tiny_run: Path) -> None:
    lines = next_commands(tiny_run).splitlines()
    assert str(tiny_run / "report" / "index.html") in lines[0]
    assert lines[1].endswith(f"groundup serve {tiny_run}")
