"""Pseudonyms of speakers: the same everywhere, and nobody's name."""

from groundup.collect.readers.speakers import pseudonym


def test_a_pseudonym_is_the_same_for_a_name_on_every_machine() -> None:
    assert pseudonym("Ann Example") == pseudonym(" ann  example") == "Vafera"
    assert len({pseudonym(f"user {n}") for n in range(500)}) > 498
    assert pseudonym("\udc80").isalpha()
