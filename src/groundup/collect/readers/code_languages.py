"""Names the language of a source file by its name or its first line. Reads and writes nothing."""

from __future__ import annotations

import re

_LANGUAGES = {
    "python": "py pyi pyx pxd pxi",
    "c": "c h",
    "c++": "cc cpp cxx c++ hh hpp hxx inl ipp",
    "rust": "rs",
    "go": "go",
    "java": "java",
    "kotlin": "kt kts",
    "scala": "scala",
    "javascript": "js mjs cjs jsx",
    "typescript": "ts tsx mts cts",
    "ruby": "rb rake gemspec ru",
    "php": "php",
    "perl": "pl pm t ep",
    "shell": "sh bash zsh fish bats",
    "powershell": "ps1 psm1",
    "batch": "bat cmd",
    "haskell": "hs",
    "ocaml": "ml mli",
    "f#": "fs fsx",
    "c#": "cs",
    "swift": "swift",
    "objective-c": "m mm",
    "lua": "lua",
    "r": "r",
    "julia": "jl",
    "clojure": "clj cljs cljc",
    "erlang": "erl hrl",
    "elixir": "ex exs",
    "lisp": "lisp el scm rkt",
    "fortran": "f f90 f95 f03",
    "assembly": "asm s",
    "sql": "sql",
    "css": "css scss sass less",
    "vue": "vue svelte",
    "dart": "dart",
    "zig": "zig",
    "nim": "nim",
    "cuda": "cu cuh",
    "d": "d",
    "groovy": "groovy gradle",
    "tcl": "tcl",
    "vim": "vim",
    "awk": "awk",
    "proto": "proto thrift",
    "cmake": "cmake",
    "make": "mk mak",
    "tex": "tex sty",
    "twig": "twig erb ejs",
    "markdown": "md markdown mdx",
    "rst": "rst",
    "docs": "txt adoc pod rdoc",
}
_BY_SUFFIX = {
    suffix: language for language, suffixes in _LANGUAGES.items() for suffix in suffixes.split()
}
_BY_NAME = {
    "makefile": "make",
    "dockerfile": "dockerfile",
    "rakefile": "ruby",
    "gemfile": "ruby",
    "cmakelists.txt": "cmake",
    "readme": "docs",
    "changelog": "docs",
}
_SHEBANG = re.compile(
    rb"#!\s*\S*?(?:/env\s+(?:-\S+\s+)*)?(python|perl|ruby|bash|sh|zsh|node|php|lua|Rscript|awk|tclsh|make)[\d.]*\b"
)
# What Emacs and Vim are told, at the start or the end of a file.
_MODELINE = re.compile(
    rb"-\*-\s*(?:mode:\s*)?([\w+-]+)\s*;?\s*-\*-|\b(?:vim?|ex):.{0,60}?\b(?:filetype|ft)=(\w+)"
)
_BY_INTERPRETER = {
    b"bash": "shell",
    b"sh": "shell",
    b"zsh": "shell",
    b"node": "javascript",
    b"Rscript": "r",
    b"tclsh": "tcl",
}
# Prose keeps its language open; what is code names it.
DOCS = frozenset(("markdown", "rst", "docs"))


def language_of(name: str, head: bytes = b"") -> str:
    """Return the language that a file is written in, by name or by its first line; "" when neither
    tells.
    """
    name = name.lower()
    known = _BY_NAME.get(name) or (_BY_SUFFIX.get(name.rpartition(".")[2]) if "." in name else None)
    return known or _of_head(head)


def _of_head(head: bytes) -> str:
    if match := _SHEBANG.match(head):
        return _BY_INTERPRETER.get(match[1], match[1].decode())
    if match := _MODELINE.search(head[:500] + b"\n" + head[-500:]):
        name = (match[1] or match[2]).decode("ascii").lower()
        return {"shell-script": "shell", "sh": "shell", "bash": "shell", "cperl": "perl"}.get(
            name, name if name in _LANGUAGES else ""
        )
    return ""
