"""Bounds of rules about words and punctuation, by language.

The bounds of published rule sets were found on English pages. Elsewhere they drop good prose: a
Korean word has three characters, Finnish compounds are long, and Thai has no full stop. The table
comes from the thresholds of FineWeb2 (Penedo et al. 2025, arXiv 2506.20920), which were set for
each language from its own text (github.com/huggingface/fineweb-2, folder configs):

    column   FineWeb2                    here
    1        min_avg_word_length         at most 3, and at least 2; 1 where a letter is a syllable
    2        max_avg_word_length         at least 10, and at most 20
    3        max_non_alpha_words_ratio   at most 0.75: the least share of words with a letter
    4        line_punct_thr              at most 0.12: the least share of lines that end a sentence

No bound is stricter than the English one, because FineWeb2 counts words of tokenizers and we count
those between white space. Of a language in several scripts, the widest bounds count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

# Lower and upper bound by ISO 639 code; UNKNOWN stands for every language that is not listed.
ByLanguage = Mapping[str, tuple[float, float]]
# A document whose language is not known. It is judged by no language's words, so these are the
# widest bounds, but for scripts that the language identification always recognizes.
UNKNOWN = ""
_UNKNOWN = (2.0, 16.0, 0.7, 0.04)

_TABLE = """
ace 3 12 .75 .12, af 3 11 .707 .053, am 1 20 .75 0, an 3 13 .75 .12, ar 2 10 .75 .12, as 3 19 .75
.094, az 3 13 .725 .12, ba 3 11 .72 .12, bcl 3 12 .75 .078, be 3 11 .72 .12, bg 3 10 .75 .12, bn 3
20 .75 .12, br 3 12 .75 .062, bs 2 16 .75 .1, ca 2 11 .75 .12, crh 3 19 .679 .12, cs 3 11 .75 .06,
cy 3 10 .75 .12, da 3 11 .75 .1, de 2 15 .75 0, dz 2 14 .75 0, el 3 11 .75 .12, eo 3 12 .75 .12, es
3 14 .75 .12, et 3 13 .722 .12, eu 3 11 .75 .12, ext 2 11 .75 .12, fa 2 10 .75 .12, ff 2 20 .75 0,
fi 3 14 .75 .114, fo 2 12 .739 0, fr 2 11 .75 .1, fy 2 11 .75 .056, ga 2 11 .75 0, gcf 2 10 .75
.12, gcr 3 10 .75 .12, gd 2 12 .75 0, gl 2 10 .75 .12, gn 3 20 .74 .083, gom 3 15 .75 .12, gu 3 20
.75 .12, guw 2 10 .75 .12, ha 3 11 .75 .111, he 2 10 .75 .12, hi 2 20 .75 .091, hr 2 11 .75 .099,
ht 2 20 .75 .028, hu 3 15 .75 .067, hy 3 11 .75 .12, id 3 12 .75 .111, ig 2 11 .75 .1, is 2 13 .75
.095, it 3 20 .75 .025, ja 2 10 .75 .096, jv 2 12 .75 .094, ka 3 13 .75 .111, kab 2 11 .75 0, ki 3
19 .75 .12, kk 3 12 .694 .12, km 2 13 .75 0, kn 3 20 .75 .095, ko 1 10 .75 .062, ku 2 10 .75 .12,
ky 3 12 .623 .12, la 3 11 .75 .1, lb 2 16 .75 .048, lg 3 13 .75 .12, lij 2 12 .75 0, ln 2 11 .75 0,
lo 2 10 .75 0, lt 3 12 .688 .12, lv 2 13 .727 .12, mg 2 10 .75 0, mk 2 10 .75 .12, ml 3 20 .75
.111, mn 2 11 .75 .077, mr 2 20 .75 .008, ms 3 11 .75 .12, mt 3 13 .75 .111, my 2 20 .75 0, ne 3 20
.75 .12, nl 3 17 .75 .102, nn 3 11 .75 .12, no 3 12 .75 .107, nso 3 13 .75 .12, oc 2 12 .75 .091,
om 2 18 .75 0, or 3 20 .75 0, pa 2 19 .75 .12, pcm 3 10 .75 .12, pl 3 12 .726 .087, ps 2 20 .75
.029, pt 3 13 .75 .077, qu 2 20 .712 .071, ro 2 14 .75 .081, ru 3 11 .713 .12, rw 2 20 .75 .062, sa
3 20 .732 .034, se 3 16 .75 0, si 2 20 .75 0, sk 2 11 .75 0, sl 2 12 .75 .045, sn 3 20 .75 .12, so
2 20 .75 0, sq 2 14 .75 .066, sr 3 10 .75 .12, st 3 19 .75 .12, sv 3 12 .75 .12, sw 3 10 .75 .12,
ta 3 20 .75 .12, te 3 20 .739 .08, tg 3 11 .71 .111, th 2 10 .75 0, tk 2 20 .75 0, tl 3 12 .75
.091, tr 3 20 .75 .091, tt 3 11 .692 .12, ug 2 15 .75 0, uk 3 11 .694 .12, ur 2 20 .75 .1, uz 3 13
.691 .12, vec 2 10 .75 0, vi 3 11 .75 .12, vo 3 11 .62 .12, wa 2 14 .73 .05, xh 2 20 .75 .035, yo 2
12 .75 .12, zh 2 10 .735 .106, zu 3 13 .738 .12
"""
_ROWS = {
    code: tuple(float(value) for value in values)
    for code, *values in (entry.split() for entry in _TABLE.split(","))
} | {UNKNOWN: _UNKNOWN}

WORD_LENGTH: ByLanguage = {code: (low, high) for code, (low, high, _, _) in _ROWS.items()}
WORDS_WITH_LETTERS: ByLanguage = {code: (low, math.inf) for code, (_, _, low, _) in _ROWS.items()}
ENDED_LINES: ByLanguage = {code: (low, math.inf) for code, (*_, low) in _ROWS.items()}
# FineWeb2 has one value for all languages but English: 0.1 of the text in repeated lines. It does
# not count short lines; a page of little else is no prose in any language.
REPEATED_LINES: ByLanguage = {UNKNOWN: (-math.inf, 0.1)}
SHORT_LINES: ByLanguage = {UNKNOWN: (-math.inf, 0.9)}
