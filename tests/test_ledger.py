"""The ledger: events survive a torn line."""

from pathlib import Path

from groundup.runtime.sealed import Ledger


def test_a_line_torn_by_a_crash_spoils_only_itself(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.write("one", n=1)
    with ledger.path.open("a") as file:
        file.write('{"event": "tor')
    ledger.write("two", n=2)
    assert [e["event"] for e in ledger.events()] == ["one", "two"]
    assert [e["n"] for e in ledger.events("two")] == [2]
