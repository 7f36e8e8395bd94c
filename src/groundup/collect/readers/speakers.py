"""Who speaks in mail, chats and forums: names that belong to nobody.

A pseudonym depends on the name alone, so it is the same in every file and on every machine, and a
thread that continues in another file goes on between the same speakers:

    pseudonym("Ann Example")   → "Vafera"
    pseudonym("ann example ")  → "Vafera"
"""

from __future__ import annotations

import hashlib

_CONSONANTS, _VOWELS = "bdfghklmnprstvwz", "aeiou"
_SYLLABLES = [consonant + vowel for consonant in _CONSONANTS for vowel in _VOWELS]


def pseudonym(name: str) -> str:
    """Return a made-up name of three syllables, one of 421,875, for the name of a speaker.

    Case and spaces around a name do not count.
    """
    key = " ".join(name.casefold().split()).encode("utf-8", "surrogatepass")
    number = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")
    syllables = []
    for _ in range(3):
        number, index = divmod(number, len(_SYLLABLES))
        syllables.append(_SYLLABLES[index])
    return "".join(syllables).capitalize()
