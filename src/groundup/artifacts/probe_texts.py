"""Texts that tokenizers get wrong. Reads and writes nothing."""

# What tokenizers get wrong: normalizers, special tokens in text, splitters that differ in one class
# of characters.
PROBES = (
    "",
    " ",
    "  two  spaces  ",
    "\0 a\0b \x07\x7f\x85",
    "e\u0301\u0302 \u0301",
    "Ａｆﬁ ﷽ ǅ İ ß ẞ ½ ² Ⅷ",
    "👨\u200d👩\u200d👧\u200d👦 🏳\ufe0f\u200d🌈 🇺🇳🇺",
    "\u202eright to left\u202c \u2066x\u2069 שלום مرحبا",
    "ᄒ 한 각ᆨ 한국어 中文。日本語、ภาษาไทย हिन्दी",
    "<|endoftext|>a<|im_start|>user\n<|im_end|>b<|endoftext",
    "\r\n\r\n  a\r\n\tb\r \u00a0\u2028\u2029\u200b\ufeff\u3000",
    "don't DON'T I'll 'S ſ's we'Ve",
    "12345 1,234.5 १२३ ١٢٣",
    "\U0010ffff\ufffe\ufdd0",
    "def f(x):\n\tif x:\n\t\treturn {'a': [1, 2]}  # ...\n\n\n",
    "!" * 300 + "a" * 300 + " " * 300 + "\n" * 300 + "é" * 300,
)
