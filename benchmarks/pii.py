"""Personal data and secrets: kinds found in made sentences, hits in all real text that was
collected, each looked at, and speed.

FineWeb's own step (datatrove's PIIFormatter: e-mail and public IP addresses) stands beside it where
it is installed. A made sentence is found when its number is hidden whole and nothing else is.
"""

from __future__ import annotations

import json
import os
import random
import re
import string
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.corpora import ALL_KINDS, collected
from benchmarks.machine import test_data
from benchmarks.peers import megabytes, result, seconds
from groundup.recipe import Personal
from groundup.refine.clean.pii import MASKS, redact
from groundup.refine.clean.pipeline import clean_texts

KEEP = Personal(**dict.fromkeys(MASKS, "keep"), in_code=())  # type: ignore[arg-type]
# D a digit, N 2 to 9, O 0 to 8, B 40 to 120, H four hexadecimal digits, W a word, X a letter or
# digit, U a capital or 2 to 7; other letters stand for themselves.
FORMATS = {
    "email": "W.W@W.org|W@W.co.uk|W+W@mail.W.com|W_W@W.io|<W@W.de>",
    "url": "http://W.org|https://www.W.com/W?W=DD|www.W.net|ftp://W.edu/W.txt|https://W.de/W_(W)",
    "ip": "B.B.B.B|B.B.D.B|20D1:H:H:H:H:H:H:a1ff|2a0D:H:H::NNa|2a0D:H::D",
    "phone": (
        "+1 NOD-NDD-DDDD|(NOD) NDD-DDDD|NOD-NDD-DDDD|NOD.NDD.DDDD|1-8ON-NDD-DDDD|NOD NDD"
        " DDDD|NDD-DDDD|+44 20 NDDD DDDD|020 7DDD DDDD|0800 NDD DDDD|07NDD DDDDDD|+49 NN"
        " NDDDDDD|0NN NDDDDDD|0NNN/NDDDDD|+33 1 DD DD DD DD|01 DD DD DD DD|01.DD.DD.DD.DD|+39 06"
        " NDDDDDDD|+34 9NN DDD DDD|+86 1NN DDDD DDDD|0NN-NDDDDDDD|+91 9DDDD"
        " DDDDD|+81-3-NDDD-DDDD|03-NDDD-DDDD|+55 (11) 9DDDD-DDDD|+7 (495) NDD-DD-DD|Tel.: DD DD"
        " DD DD"
    ),
    "secret": "|".join(
        prefix + filling * count
        for prefix, filling, count in (
            ("AKIA", "U", 16),
            *((prefix, "X", 36) for prefix in ("ghp_", "npm_")),
            ("glpat-", "X", 20),
            ("xoxb-", "X", 40),
            ("sk_live_", "X", 24),
            ("AIza", "X", 35),
            ("sk-", "X", 48),
            ("sk-ant-api03-", "X", 93),
        )
    ),
}
STAY = (
    "v10.B.B.B|version B.B.B.B|N.N.D.D|section N.N.N.N|10.B.B.B|192.168.B.B|127.0.0.1|pages"
    " NDD-NDD|19DD-20DD|12/1D/20DD|20DD-11-2D|2D.11.19DD|11:2D:3D|isbn 978-D-DDDD-DDDD-D|isbn"
    " D-DDDD-DDDD-D|issn DDDD-DDDD|NDDDDDDD|NDD,NDD,NDD|N.DDDDDDD|NDD-NN-DDDD|NDDD NDDD NDDD"
    " NDDD|+N.DDDD -N.DDDD|NN.DDDD, -NN.DDDD|+NN,DDD|de89 NDDD NDDD NDDD NDDD"
    " DD|10.1016/0020-DDDD(8N)9DDDD|$N,NDD,NDD|NDD NDD NDD|0.DDDDDD|05 1D 2D 3D"
    " 4D|#NDDDDDD|std::W|00:1b:44:1D:3a:bD|NDDxNDD|utc+0N00|@W|W@W|a/b/N|N:NN:NN|NDD-DDD"
    "|NDD/NDD/DD|x-NDD-NDD-DDDD-DD|rfc"
    " NDDD|NNNNN-DDDD"
)
SENTENCES = (
    "You may try {} on any day.",
    "It is {}",
    "{}, as we said.",
    "The old one ({}) was lost.",
)
WORDS = "alder birch cedar elm fir hazel larch maple oak pine rowan willow".split()
EACH = 40
# Hits in the real data that are not what they are taken for, found by looking at all of them.
WRONG = {"281-724-43323027"}

PEER = """
import json, sys, time
from datatrove.pipeline.formatters.pii import PIIFormatter
texts = json.load(open(sys.argv[1]))
step = PIIFormatter(email_replacement="[email]", ip_replacement="[ip]")
spent = []
for _ in range(2):
    start = time.process_time()
    out = [step.format(text) for text in texts]
    spent.append(time.process_time() - start)
json.dump({"texts": out, "seconds": min(spent)}, open(sys.argv[2], "w"))
"""


def measure() -> dict[str, object] | None:
    data = test_data()
    figures: dict[str, object] = made()
    if data is not None:
        with tempfile.TemporaryDirectory() as folder:
            run = collected(data, Path(folder), ALL_KINDS)
            figures |= real(run.root / "collect" / "documents")
    return result(__doc__, figures)


def write(pattern: str, chance: random.Random) -> str:
    """Fill a format in."""
    kinds = {"D": "0123456789", "N": "23456789", "O": "012345678"}
    text = re.sub("[DNO]", lambda hit: chance.choice(kinds[hit[0]]), pattern)
    text = re.sub("H", lambda _: f"{chance.randrange(1, 1 << 16):x}", text)
    texts = {
        "W": lambda: chance.choice(WORDS),
        "B": lambda: str(chance.randrange(40, 121)),
        "X": lambda: chance.choice(string.ascii_letters + string.digits),
        "U": lambda: chance.choice(string.ascii_uppercase + "234567"),
    }
    return re.sub("[WBXU]", lambda hit: texts[hit[0]](), text)


def made() -> dict[str, object]:
    """Hide numbers in sentences made of formats, and in such that should stay."""
    chance = random.Random(0)
    figures: dict[str, object] = {}
    for kind, formats in (FORMATS | {"": STAY}).items():
        numbers = [write(pattern, chance) for pattern in formats.split("|") for _ in range(EACH)]
        frames = [chance.choice(SENTENCES) for _ in numbers]
        texts = [frame.format(number) for frame, number in zip(frames, numbers, strict=True)]
        plain = re.compile(r"^(?:Tel\.: |<)|>$")
        wanted = [
            frame.format(number.replace(plain.sub("", number), MASKS[kind]) if kind else number)
            for frame, number in zip(frames, numbers, strict=True)
        ]
        name = f"made, {kind}: hidden right" if kind else "made, what should stay: left alone"
        for tool, out in {
            "ours": ours(texts),
            "FineWeb": peer(texts)[0] if kind in ("email", "ip", "") else None,
        }.items():
            if out is not None:
                figures[f"{name}, {tool}"] = sum(map(str.__eq__, out, wanted)) / len(texts)
        if kind == "phone":
            missed = Counter(
                formats.split("|")[n // EACH]
                for n, (a, b) in enumerate(zip(ours(texts), wanted, strict=True))
                if a != b
            )
            figures["made, phone: formats that are missed"] = ", ".join(
                f"{name} ({count / EACH:.0%})" for name, count in missed.items()
            )
    return figures


def ours(texts: list[str]) -> list[str]:
    hidden: list[str] = redact(pa.array(texts), dict.fromkeys(MASKS, "mask"))[0].to_pylist()
    return hidden


def peer(texts: list[str]) -> tuple[list[str] | None, float]:
    """Return what FineWeb's step makes of texts, and its seconds; None where PEERS_PYTHON names no
    Python that has it.
    """
    python = os.environ.get("PEERS_PYTHON")
    if not python:
        return None, 0.0
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder, "in.json"), Path(folder, "out.json")
        given.write_text(json.dumps(texts), encoding="utf-8")
        subprocess.run([python, "-c", PEER, str(given), str(made)], check=True)
        out = json.loads(made.read_text(encoding="utf-8"))
    return out["texts"], out["seconds"]


def real(documents: Path) -> dict[str, object]:
    """Count hits in collected texts by kind, and take the time with and without."""
    figures: dict[str, object] = {}
    hits: Counter[str] = Counter()
    wrong = 0
    for kind in sorted(
        {path.name.partition(".")[0] for path in documents.glob("*.parquet")} - {"code"}
    ):
        texts = [
            text
            for path in sorted(documents.glob(f"{kind}.*.parquet"))
            for text in pq.read_table(path, columns=["text"])["text"].to_pylist()
        ]
        column, code = pa.array(texts, pa.string()), np.zeros(len(texts), np.bool_)
        clean = clean_texts(column, code, KEEP).texts
        found = counts(clean.to_pylist())
        figures[f"{kind}: MB"] = megabytes(texts)
        figures |= {f"{kind}: {name} hits": found[name] for name in MASKS}
        hits += found
        wrong += sum(text.count(number) for text in texts for number in WRONG)
        actions = Personal().actions(code=False)
        figures[f"{kind}: MB/s, personal data alone"] = megabytes(texts) / seconds(
            lambda clean=clean, actions=actions: redact(clean, actions)
        )  # type: ignore[misc]
        numbers = {name: actions[name] for name in ("ip", "phone")}
        figures[f"{kind}: MB/s, numbers alone"] = megabytes(texts) / seconds(
            lambda clean=clean, numbers=numbers: redact(clean, numbers)
        )  # type: ignore[misc]
        out, spent = peer(texts)
        if out is not None:
            figures[f"{kind}: MB/s, FineWeb's step (e-mail and IP)"] = megabytes(texts) / spent
    figures |= {
        "all: IP and phone hits, looked at": hits["ip"] + hits["phone"],
        "all: of these wrong or cut wrong": wrong,
    }
    return figures


def counts(texts: list[str]) -> Counter[str]:
    """Count what is masked, less what looked like a mask before."""
    masked = ours(texts)
    return Counter(
        {
            name: sum(a.count(mask) - b.count(mask) for a, b in zip(masked, texts, strict=True))
            for name, mask in MASKS.items()
        }
    )
