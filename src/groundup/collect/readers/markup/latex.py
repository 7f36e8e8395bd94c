r"""LaTeX: a paper, a book, or a chapter that another file includes, as prose.

    \section{A \emph{title}}                  A title
    % no comment
    Caf\'e~\cite{x}: $a_1$.\footnote{So.} →   Café: $a_1$.

                                              So.

Mathematics stay TeX. Short macros of the document's own are expanded. One pass over the commands
drops those that set something, with their arguments, and keeps the arguments of all others, so that
an unknown command costs nothing but its name. Other files are never read.
"""

from __future__ import annotations

import re
import unicodedata

from groundup.collect.readers.markup import latex_commands as commands
from groundup.collect.readers.markup.plain import (
    MAX_DEPTH,
    Stash,
    dedent,
    join_lines,
    read_markup,
    tidy,
    with_title,
)

_COMMENT = re.compile(r"(\\[\s\S])|%[^\n]*(?:\n[ \t]*+(?!\n))?")
_VERB = re.compile(r"\\(?:verb|lstinline)\*?(?:\[[^\]\n]*\])?([^\sA-Za-z*\[{])([^\n]*?)\1")
_BEGIN = re.compile(r"\\begin[ \t]*\{([A-Za-z]+\*?)\}")
_LABEL = re.compile(r"[ \t]*\\(?:label|tag)\*?\{[^{}]*\}|\\nonumber\b|\\notag\b")
_MATH = re.compile(
    r"\$\$((?:[^$\\]|\\[\s\S])++)\$\$|\$((?:[^$\\\n]|\\[\s\S]|\n(?![ \t]*\n))++)\$"
    r"|\\\(((?:[^\\]|\\[^()])++)\\\)|\\\[((?:[^\\]|\\[^\[\]])++)\\\]"
    r"|\\[^\[(]"
)
_DEFINITION = re.compile(
    r"\\(?:(?:re)?newcommand|providecommand|DeclareRobustCommand)\*?\s*\{?\s*\\([A-Za-z]+)\s*\}?"
    r"\s*(?:\[(\d)\])?\s*(?:\[([^\]]*)\])?\s*\{|\\[gex]?def\s*\\([A-Za-z]+)((?:#\d)*)\s*\{"
)
_THEOREM = re.compile(r"\\newtheorem\*?\{(\w+)\}(?:\[\w+\])?\{([^{}]*)\}")
_TITLE = re.compile(r"\\title\s*(?:\[[^\]]{0,300}\])?\{")
_BRACE = re.compile(r"\\[\s\S]|[{}]")
_TOKEN = re.compile(r"\\(?:([A-Za-z@]+)\*?[ \t]*|([\s\S]))|[{}&~]")
_NAME = re.compile(r"\\([A-Za-z]+)[ ]?")
_OPTION = re.compile(r"[ \t]*\[([^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)*)\]")
_DIMENSION = re.compile(
    r"=?\s*-?[\d.]*\s*(?:\\\w+|em|ex|pt|cm|mm|in|sp|bp)\b(?:\s*(?:plus|minus)\s*[\d.]+\w+)*"
)
# Commands that stay commands in an environment of code.
_ALLTT = re.compile(
    r"\\PYGZ(?P<sign>[a-z]{2})\{\}|\\PYG\{[^{}\n]*\}"
    r"|(?P<backslash>\\)textbackslash(?:\{\})?|\\(?P<escaped>[{}\\_%&$#])|\\[A-Za-z]+[ ]?|[{}]"
)
_CODE_OPTIONS = re.compile(r"(?:\[[^\]\n]*\])?(?:\{[^{}\n]*\})?")
# Files without a document are chapters, which have words in a row, or settings, which have none.
_PROSE = re.compile(r"\b(?:[^\W\d_]++[,;]?\s){5}|[^\W\d_\x00-\x7f]{8}")
_LETTER = re.compile(r"[^\W\d_]")
_FORMULA_END = re.compile("[$\ufdd0\ufdd1]")  # a stashed one has marks
_ACCENT_OF = re.compile(r"\s*(?:\{\s*(?:\\([ij])\s*|(\w?))\s*\}|\\([ij])(?![A-Za-z])[ ]?|(\w))")

# What references without words leave behind: `(see Section )`, `in, , and`.
_GAP = re.compile(
    r"\((?=[^()]{0,40}\))(?:see|cf\.|also|in|sections?|chapters?|fig(?:ures?|s?\.)|tables?"
    r"|eq(?:uations?|s?\.)|appendix|[\s,;])*+\)|(,)(?: ?,)++| (?=\))",
    re.IGNORECASE,
)
_BOX_SIZE = re.compile(r"[ \t]*(?:to|spread)\b" + _DIMENSION.pattern)
_APART = "\ufdd5"  # between two signs that are no ligature, as in `-{}-`
_LINE, _NOTE, _NOTE_END = "\ufdd4", "\ufdd2", "\ufdd3"
_NOTES = re.compile(f"{_NOTE}(\\d+){_NOTE_END}")
_MAX_EXPANSION = 4  # a text whose macros make it longer than this many times itself stays as it is
_MAX_BODY = 400  # characters of a macro that stands for words


class _Converter:
    """Goes over the commands of a text once and collects the words."""

    def __init__(self, text: str, stash: Stash, theorems: dict[str, str]) -> None:
        self.text, self.stash, self.theorems = text, stash, theorems
        self.pairs = _brace_pairs(text)
        self.out: list[str] = []
        self.closers: dict[int, str] = {}  # what follows the argument that ends at a brace
        self.jumps: dict[int, int] = {}  # where to go on behind a brace
        self.buffers: dict[int, list[str]] = {}  # of the text around a footnote, by its end
        self.notes: list[str] = []
        self.lists: list[int] = []  # items so far of each open list; -1 where they have no number
        self.tables: list[list[str]] = []  # text around each open table
        self.heads: list[int] = []  # pieces of the head of each open table, 0 where it is read

    def convert(self) -> str:
        """Return the text in paragraphs."""
        text, position = self.text, 0
        while match := _TOKEN.search(text, position):
            if match.start() > position:
                self.out.append(text[position : match.start()])
            position = match.end()
            if match[1]:
                position = self.command(match[1], position)
            elif match[2]:
                position = self.symbol(match[2], position)
            elif match[0] == "~":
                self.out.append(" ")
            elif match[0] == "&":
                self.out.append(" | " if self.tables else "")
            elif match[0] == "}":
                position = self.close(match.start())
        self.out.append(text[position:])
        while self.tables:
            self.end_table()
        for buffer in self.buffers.values():
            self.out = buffer + self.out
        return "".join(self.out)

    def close(self, brace: int) -> int:
        """End an argument."""
        if (buffer := self.buffers.pop(brace, None)) is not None:
            self.notes.append("".join(self.out))
            self.out = [*buffer, f"{_NOTE}{len(self.notes) - 1}{_NOTE_END}"]
        self.out.append(self.closers.pop(brace, ""))
        return self.jumps.pop(brace, brace + 1)

    def argument(self, position: int) -> tuple[int, int]:
        """Return where the next argument begins and ends, its braces included; equal if none."""
        text = self.text
        start = position
        while start < len(text) and text[start] in " \t\n" and start - position < 100:
            start += 1
        if text[start : start + 1] == "{" and start in self.pairs:
            return start, self.pairs[start] + 1
        return position, position

    def option(self, position: int) -> tuple[str, int]:
        """Return the optional argument at a position, and the position after it."""
        match = _OPTION.match(self.text, position, position + 1000)
        return (match[1], match.end()) if match else ("", position)

    def command(self, name: str, position: int) -> int:  # noqa: PLR0911, PLR0912 - a table of cases
        """Add what a command stands for; return the position after what it took."""
        if name in ("begin", "end"):
            return self.environment(name, position)
        if name in commands.WORDS:
            self.out.append(commands.WORDS[name])
            return self.argument(position)[1] if self.text.startswith("{}", position) else position
        if name == "item":
            return self.item(position)
        if name in commands.TABLE_PARTS and self.tables:
            self.end_head(name)
            return position
        if name in commands.ACCENTS and len(name) == 1:
            return self.accent(name, position)
        if name in commands.LENGTHS or name in commands.BOXES:
            pattern = _DIMENSION if name in commands.LENGTHS else _BOX_SIZE
            match = pattern.match(self.text, position)
            return match.end() if match else position
        if name in ("def", "gdef", "edef", "xdef") or name.endswith("command"):
            match = _DEFINITION.match(self.text, self.text.rindex("\\", 0, position))
            end = self.pairs.get(match.end() - 1) if match else None
            return end + 1 if end else position
        if (count := commands.dropped_arguments(name)) is not None:
            return self.drop(position, count)
        for _ in range(2):
            _, position = self.option(position)
        if name in commands.FIRST_DROPPED:
            return self.drop(position, commands.FIRST_DROPPED[name])
        start, end = self.argument(position)
        if name in commands.HEADINGS and end > start:
            self.out.append("\n\n")
            self.closers[end - 1] = "\n\n"
        elif name in ("footnote", "footnotetext", "thanks") and end > start:
            self.buffers[end - 1], self.out = self.out, []
            return start + 1
        elif name == "texorpdfstring" and end > start:
            self.jumps[end - 1] = self.argument(end)[1]
        return position

    def drop(self, position: int, count: int) -> int:
        """Return the position behind `count` arguments and the options between them."""
        for _ in range(count):
            for _ in range(2):
                _, position = self.option(position)
            position = self.argument(position)[1]
        return position

    def symbol(self, char: str, position: int) -> int:
        """Add what a command of one sign stands for."""
        if char in commands.ACCENTS and not char.isalpha():
            return self.accent(char, position)
        if char == "\\":
            self.out.append(_LINE)
            if self.text[position : position + 1] == "*":
                position += 1
            return self.option(position)[1]
        self.out.append(commands.SIGNS.get(char, char if char in "&%$#_{}" else ""))
        return position

    def accent(self, name: str, position: int) -> int:
        """Add a letter with its accent."""
        match = _ACCENT_OF.match(self.text, position)
        if not match:
            return position
        letter = match[1] or match[2] or match[3] or match[4] or ""
        self.out.append(unicodedata.normalize("NFC", letter + commands.ACCENTS[name]))
        return match.end()

    def environment(self, which: str, position: int) -> int:
        """Begin or end an environment; lists count their items, tables get rows."""
        start, end = self.argument(position)
        name = self.text[start + 1 : end - 1].strip().rstrip("*") if end > start else ""
        if name in commands.LISTS:
            if which == "begin":
                self.lists.append(0 if name == "enumerate" else -1)
                self.out.append("\n\n" if len(self.lists) == 1 else "")
                count = commands.ENVIRONMENT_ARGUMENTS.get(name, 0)
                return self.drop(self.option(end)[1], count)
            del self.lists[-1:]
            self.out.append("\n\n" if not self.lists else _LINE)
            return end
        if name in commands.TABLES:
            if which == "end":
                self.end_table()
                return end
            self.tables.append(self.out)
            self.heads.append(0)
            self.out = []
            return self.drop(end, commands.TABLES[name])
        self.out.append("\n\n")
        if which == "end":
            return end
        title = self.theorems.get(name) or commands.TITLES.get(name)
        option, end = self.option(end)
        if title:
            self.out.append(f"{title} ({option}). " if option else f"{title}. ")
            if name == "abstract":
                self.out[-1] = f"{title}\n\n"
        return self.drop(end, commands.ENVIRONMENT_ARGUMENTS.get(name, 0))

    def end_table(self) -> None:
        """Add the rows of a table to the text around it."""
        if self.tables:
            rows = " ".join("".join(self.out).split()).split(_LINE)
            self.out = self.tables.pop()
            self.heads.pop()
            lines = filter(None, (row.strip("| ") for row in rows))
            self.out.append("\n\n" + _LINE.join(lines) + "\n\n")

    def end_head(self, name: str) -> None:
        """Keep the first head of a table; what its further pages begin and end with goes."""
        if self.heads[-1] or name.endswith("foot"):
            del self.out[self.heads[-1] :]
        self.heads[-1] = len(self.out)

    def item(self, position: int) -> int:
        """Begin an item of a list."""
        label, position = self.option(position)
        mark = "- "
        if self.lists and self.lists[-1] >= 0 and not label:
            self.lists[-1] += 1
            mark = f"{self.lists[-1]}. "
        margin = "  " * min(len(self.lists) - 1, MAX_DEPTH)
        self.out.append(f"{_LINE}{margin}{mark}")
        if label:
            # Labels may hold commands: they are read as text.
            position = self.text.rindex("[", 0, position - len(label)) + 1
            close = self.text.index("]", position + len(label))
            self.out.append(_plain(self.text[position:close]) + " ")
            return close + 1
        return position


def _plain(text: str) -> str:
    """Return a short text without its commands and braces."""
    return re.sub(r"\\[A-Za-z]+\s?|[{}\\]", "", text)


def _brace_pairs(text: str) -> dict[int, int]:
    """Return the position of the closing brace of every opening one."""
    pairs, opened = {}, []
    for match in _BRACE.finditer(text):
        if match[0] == "{":
            opened.append(match.start())
        elif match[0] == "}" and opened:
            pairs[opened.pop()] = match.start()
    return pairs


def _cut_environments(text: str, stash: Stash, actions: tuple[str, ...]) -> str:
    """Return a text with code and formulas stashed, and without pictures and references."""
    parts, position, unclosed = [], 0, set()
    while match := _BEGIN.search(text, position):
        name = match[1].rstrip("*")
        action = commands.ENVIRONMENTS.get(name)
        end = -1
        if action in actions and match[1] not in unclosed:
            end = text.find(closing := f"\\end{{{match[1]}}}", match.end())
            if end < 0:
                unclosed.add(match[1])
        if end < 0:
            parts.append(text[position : match.end()])
            position = match.end()
            continue
        parts.append(text[position : match.start()])
        body = text[match.end() : end]
        position = end + len(closing)
        if action == "code":
            body = _code(name, body)
            parts.append("\n\n" + stash.put(dedent(body.split("\n"), 0)) + "\n\n")
        elif action == "math":
            lines = map(str.rstrip, _LABEL.sub("", body).split("\n"))
            body = "\n".join(filter(None, lines))
            parts.append(
                "\n" + stash.put(f"\\begin{{{match[1]}}}\n{body}\n\\end{{{match[1]}}}") + "\n"
            )
        elif action == "captions":
            parts.append("\n\n" + "\n\n".join(_captions(body)) + "\n\n")
    return "".join([*parts, text[position:]])


def _code(name: str, body: str) -> str:
    """Return the code in an environment, without its options and the commands that may be in it."""
    options = _CODE_OPTIONS.match(body)
    start = options.end() if options else 0
    has_commands = name in commands.CODE_WITH_COMMANDS or "commandchars" in body[:start]
    body = _ALLTT.sub(_code_sign, body[start:]) if has_commands else body[start:]
    return body.replace("~", " ") if name == "lyxcode" else body


def _code_sign(mark: re.Match[str]) -> str:
    """Return what stands for a command in code."""
    if mark["sign"]:
        return commands.PYGMENTS_SIGNS.get(mark["sign"], "")
    return mark["backslash"] or mark["escaped"] or ""


def _captions(body: str) -> list[str]:
    """Return the captions of a figure, still as LaTeX."""
    pairs = _brace_pairs(body)
    starts = [match.end() - 1 for match in re.finditer(r"\\caption\*?(?:\[[^\]]*\])?\{", body)]
    return [body[start + 1 : pairs[start]] for start in starts if start in pairs]


def _take_macros(text: str) -> tuple[dict[str, tuple[int, str | None, str]], str]:
    """Return the macros that may stand for words, and the text without their definitions.

    A macro is its number of arguments, the default of the first, and its body.
    """
    macros, parts, position = {}, [], 0
    pairs = _brace_pairs(text)
    for match in _DEFINITION.finditer(text):
        name = match[1] or match[4]
        end = pairs.get(match.end() - 1)
        if end is None or match.start() < position:
            continue
        parts.append(text[position : match.start()])
        position = end + 1
        body = text[match.end() : end]
        is_program = re.search(r"@|\\(?:begin|end|if|def|new|let|expandafter|csname)", body)
        if len(body) <= _MAX_BODY and not is_program and not commands.is_known(name):
            count = int(match[2]) if match[2] else (match[5] or "").count("#")
            macros[name] = (count, match[3], body)
    return macros, "".join([*parts, text[position:]])


def _expand(text: str, macros: dict[str, tuple[int, str | None, str]]) -> str:
    """Return a text with macros replaced by their bodies, those inside of bodies too."""
    limit = _MAX_EXPANSION * len(text) + 100_000
    for _ in range(3):
        pairs, parts, position, size = _brace_pairs(text), [], 0, 0
        for match in _NAME.finditer(text):
            if match.start() < position or match[1] not in macros:
                continue
            count, default, body = macros[match[1]]
            end, values = match.end(), []
            option = _OPTION.match(text, end) if default is not None else None
            if default is not None:
                values.append(option[1] if option else default)
                end = option.end() if option else end
            while len(values) < count and end in pairs and text[end] == "{":
                values.append(text[end + 1 : pairs[end]])
                end = pairs[end] + 1
            for number, value in enumerate(values, 1):
                body = body.replace(f"#{number}", value)
            piece = text[position : match.start()] + body
            size += len(piece)
            if size > limit:
                return text
            parts.append(piece)
            position = end
        if not parts:
            break
        text = "".join([*parts, text[position:]])
    return text


def latex_text(text: str, name: str = "") -> str:
    """Return the prose of LaTeX."""
    stash = Stash()
    text = _VERB.sub(lambda verb: stash.put(verb[2]), text)
    # A percent sign in code begins no comment.
    text = _cut_environments(text, stash, ("code",))
    text = _COMMENT.sub(lambda piece: piece[1] or "", text)
    text = _cut_environments(text, stash, ("math", "captions", "drop"))
    text = re.sub(r"\\makeatletter(?:(?!\\makeat)[\s\S])*+\\makeatother", "", text)
    text = re.sub(r"\\iffalse(?:(?!\\iffalse|\\fi\b)[\s\S])*+\\fi\b", "", text)
    macros, text = _take_macros(text)
    pairs = _brace_pairs(text)
    theorems = commands.THEOREMS | dict(_THEOREM.findall(text))
    title = ""
    if (found := _TITLE.search(text)) and found.end() - 1 in pairs:
        title = text[found.end() : pairs[found.end() - 1]]
    begin = text.find(r"\begin{document}")
    if begin >= 0:
        end = text.find(r"\end{document}", begin)
        text = text[begin + len(r"\begin{document}") : end if end >= 0 else None]
    elif r"\documentclass" in text:
        text = ""
    prose = _paragraphs(text, macros, theorems, stash)
    if (begin < 0 and not _PROSE.search(prose)) or _is_template(prose):
        return ""
    title = " ".join(_paragraphs(title, macros, theorems, stash).split())
    return with_title(stash.restore(title), stash.restore(tidy(prose)))


def _is_template(prose: str) -> bool:
    """Return whether all words stick to dollars: `$title$body` is where a program fills in."""
    words = [word for word in prose.split() if _LETTER.search(word)]
    return bool(words) and all(map(_FORMULA_END.search, words))


def _paragraphs(
    text: str,
    macros: dict[str, tuple[int, str | None, str]],
    theorems: dict[str, str],
    stash: Stash,
) -> str:
    """Return the paragraphs of a text, each followed by its footnotes."""

    def formula(math: re.Match[str]) -> str:
        inner = next((group for group in math.groups() if group is not None), None)
        if inner is None:
            return math[0]
        mark = "$$" if math[1] is not None or math[4] is not None else "$"
        inner = " ".join(_LABEL.sub("", inner).split())
        return stash.put(f"{mark}{inner}{mark}")

    text = _MATH.sub(formula, re.sub(r"(?<=[-`'])\{\}(?=[-`'])", _APART, text))
    if macros:
        text = _expand(text, macros)
        text = _MATH.sub(formula, text)
    converter = _Converter(text, stash, theorems)
    paragraphs = []
    for paragraph in re.split(r"\n[ \t]*\n\s*", converter.convert()):
        notes = [converter.notes[int(number)] for number in _NOTES.findall(paragraph)]
        paragraphs.append(_join(_NOTES.sub("", paragraph)))
        paragraphs += [_join(_NOTES.sub("", note)) for note in notes]
    return "\n\n".join(filter(str.strip, paragraphs))


def _join(paragraph: str) -> str:
    """Return a paragraph with its lines joined, and with typographic signs."""
    lines = (join_lines(line.split("\n")) for line in paragraph.split(_LINE))
    lines = (line for line in lines if line.strip() != "-")
    # Margins of items of inner lists are kept.
    text = "\n".join(line.strip() if not line.startswith("  ") else line.rstrip() for line in lines)
    text = _GAP.sub(lambda gap: gap[1] or "", text)
    for sign, character in commands.TYPOGRAPHY:
        if sign in text:
            text = text.replace(sign, character)
    return text.replace(_APART, "").strip("\n")


read_latex = read_markup(latex_text)
