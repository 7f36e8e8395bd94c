"""The languages that the language identification knows, by ISO 639 code."""

from __future__ import annotations

import difflib


def _pairs(text: str) -> dict[str, str]:
    return dict(entry.split(maxsplit=1) for entry in text.replace("\n", " ").split(","))


# Varieties count as the language, so that a recipe with Chinese or Arabic gets all of it.
MEMBERS = _pairs(
    "arz ar, ary ar, fuv ff, grc el, gug gn, hbo he, kik ki, ltg lv, sdh ku, uzs uz, wuu zh, yue zh"
)
LANGUAGES = _pairs("""
ace Acehnese, af Afrikaans, am Amharic, an Aragonese, ar Arabic, as Assamese, az Azerbaijani, ba
Bashkir, bcl Bikol, be Belarusian, bg Bulgarian, bn Bengali, br Breton, bs Bosnian, ca Catalan,
crh Crimean Tatar, cs Czech, cy Welsh, da Danish, de German, dz Dzongkha, el Greek, en English, eo
Esperanto, es Spanish, et Estonian, eu Basque, ext Extremaduran, fa Persian, ff Fula, fi Finnish,
fo Faroese, fr French, fy Frisian, ga Irish, gcf Antillean Creole, gcr Guianese Creole, gd Gaelic,
gl Galician, gn Guarani, gom Konkani, gu Gujarati, guw Gun, ha Hausa, he Hebrew, hi Hindi, hr
Croatian, ht Haitian, hu Hungarian, hy Armenian, id Indonesian, ig Igbo, is Icelandic, it Italian,
ja Japanese, jv Javanese, ka Georgian, kab Kabyle, ki Kikuyu, kk Kazakh, km Khmer, kn Kannada, ko
Korean, ku Kurdish, ky Kyrgyz, la Latin, lb Luxembourgish, lg Ganda, lij Ligurian, ln Lingala, lo
Lao, lt Lithuanian, lv Latvian, mg Malagasy, mk Macedonian, ml Malayalam, mn Mongolian, mr
Marathi, ms Malay, mt Maltese, my Burmese, ne Nepali, nl Dutch, nn Nynorsk, no Norwegian, nso
Northern Sotho, oc Occitan, om Oromo, or Odia, pa Punjabi, pcm Nigerian Pidgin, pl Polish, ps
Pashto, pt Portuguese, qu Quechua, ro Romanian, ru Russian, rw Kinyarwanda, sa Sanskrit, se
Northern Sami, si Sinhala, sk Slovak, sl Slovenian, sn Shona, so Somali, sq Albanian, sr Serbian,
st Sotho, sv Swedish, sw Swahili, ta Tamil, te Telugu, tg Tajik, th Thai, tk Turkmen, tl Tagalog,
tr Turkish, tt Tatar, ug Uyghur, uk Ukrainian, ur Urdu, uz Uzbek, vec Venetian, vi Vietnamese, vo
Volapük, wa Walloon, xh Xhosa, yo Yoruba, zh Chinese, zu Zulu
""")
# Codes that others write for the same language.
_OTHERS = MEMBERS | _pairs("fil tl, in id, iw he, jw jv, mo ro, nb no, sh sr")


def nearest_language(word: str) -> str:
    """Return '; did you mean "xx" (Name)?' for an unknown code or name, or how many are known."""
    word = word.lower()
    code = word.replace("_", "-").partition("-")[0]
    names = {name.lower(): code for code, name in LANGUAGES.items()}
    if code in _OTHERS:
        code = _OTHERS[code]
    elif code not in LANGUAGES:
        close = difflib.get_close_matches(word, names, n=1, cutoff=0.7) if len(word) > 3 else []
        codes = [names[name] for name in close]
        code = next(iter(codes or difflib.get_close_matches(code, LANGUAGES, n=1)), "")
    if not code:
        return f"; it is not one of the {len(LANGUAGES)} that the model knows"
    return f'; did you mean "{code}" ({LANGUAGES[code]})?'
