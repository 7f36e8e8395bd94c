"""The languages that the shipped model knows, by ISO 639 code. Reads and writes nothing."""

from __future__ import annotations

import difflib

# A language takes in its varieties, so that who asks for Chinese or Arabic gets all of it.
MEMBERS = {
    "arz": "ar",
    "ary": "ar",
    "fuv": "ff",
    "grc": "el",
    "gug": "gn",
    "hbo": "he",
    "kik": "ki",
    "ltg": "lv",
    "sdh": "ku",
    "uzs": "uz",
    "wuu": "zh",
    "yue": "zh",
}
_NAMES = """
ace Acehnese, af Afrikaans, am Amharic, an Aragonese, ar Arabic, as Assamese, az Azerbaijani, ba Bashkir, bcl Bikol, be Belarusian,
bg Bulgarian, bn Bengali, br Breton, bs Bosnian, ca Catalan, crh Crimean Tatar, cs Czech, cy Welsh, da Danish, de German, dz Dzongkha,
el Greek, en English, eo Esperanto, es Spanish, et Estonian, eu Basque, ext Extremaduran, fa Persian, ff Fula, fi Finnish, fo Faroese,
fr French, fy Frisian, ga Irish, gcf Antillean Creole, gcr Guianese Creole, gd Gaelic, gl Galician, gn Guarani, gom Konkani,
gu Gujarati, guw Gun, ha Hausa, he Hebrew, hi Hindi, hr Croatian, ht Haitian, hu Hungarian, hy Armenian, id Indonesian, ig Igbo,
is Icelandic, it Italian, ja Japanese, jv Javanese, ka Georgian, kab Kabyle, ki Kikuyu, kk Kazakh, km Khmer, kn Kannada, ko Korean,
ku Kurdish, ky Kyrgyz, la Latin, lb Luxembourgish, lg Ganda, lij Ligurian, ln Lingala, lo Lao, lt Lithuanian, lv Latvian, mg Malagasy,
mk Macedonian, ml Malayalam, mn Mongolian, mr Marathi, ms Malay, mt Maltese, my Burmese, ne Nepali, nl Dutch, nn Nynorsk, no Norwegian,
nso Northern Sotho, oc Occitan, om Oromo, or Odia, pa Punjabi, pcm Nigerian Pidgin, pl Polish, ps Pashto, pt Portuguese, qu Quechua,
ro Romanian, ru Russian, rw Kinyarwanda, sa Sanskrit, se Northern Sami, si Sinhala, sk Slovak, sl Slovenian, sn Shona, so Somali,
sq Albanian, sr Serbian, st Sotho, sv Swedish, sw Swahili, ta Tamil, te Telugu, tg Tajik, th Thai, tk Turkmen, tl Tagalog, tr Turkish,
tt Tatar, ug Uyghur, uk Ukrainian, ur Urdu, uz Uzbek, vec Venetian, vi Vietnamese, vo Volapük, wa Walloon, xh Xhosa, yo Yoruba,
zh Chinese, zu Zulu
"""
LANGUAGES = dict(entry.split(maxsplit=1) for entry in _NAMES.replace("\n", " ").split(","))
# What others write for the same language.
_OTHERS = MEMBERS | {
    "fil": "tl",
    "in": "id",
    "iw": "he",
    "jw": "jv",
    "mo": "ro",
    "nb": "no",
    "sh": "sr",
}


def nearest_language(word: str) -> str:
    """Return the code that someone who wrote `word`, a code or a name, most likely meant, with its
    name; or how many there are.
    """
    word = word.lower()
    whole, names = (
        word.replace("_", "-").partition("-")[0],
        {name.lower(): code for code, name in LANGUAGES.items()},
    )
    close = (
        [names[name] for name in difflib.get_close_matches(word, names, n=1, cutoff=0.7)]
        if len(word) > 3
        else []
    )
    code = _OTHERS.get(whole) or (
        whole
        if whole in LANGUAGES
        else next(iter(close or difflib.get_close_matches(whole, LANGUAGES, n=1)), "")
    )
    return (
        f'; did you mean "{code}" ({LANGUAGES[code]})?'
        if code
        else f"; it is not one of the {len(LANGUAGES)} that the model knows"
    )
