"""Plain text for LaTeX, and booktabs rules that pandas does not set."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import groupby

from recon_toolkit.bench.layout import Grid

_COMMANDS = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "%": r"\%", "&": r"\&", "#": r"\#", "_": r"\_", "$": r"\$",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "[": "{[}", "]": "{]}",  # brackets would be options after \\
    "±": r"$\pm$", "×": r"$\times$", "°": r"$^{\circ}$", "−": "$-$", "†": r"$^{\dagger}$", "Δ": r"$\Delta$",
    "↓": r"$\downarrow$", "↑": r"$\uparrow$", "→": r"$\rightarrow$", "≤": r"$\leq$", "≥": r"$\geq$", "·": r"$\cdot$",
    "√": r"$\surd$", "∞": r"$\infty$", "–": "--", "—": "---", "‘": "`", "’": "'", "“": "``", "”": "''", "…": r"\dots{}",
    "\u00a0": "~", "µ": r"$\mu$",
}  # fmt: skip
#: Shrinks a table that is wider than the page, and leaves others as they are.
_FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+", strict=True))
_GREEK = {
    letter: unicodedata.name(letter).split()[-1].lower().replace("lamda", "lambda")
    for letter in "αβγδεζηθικλμνξπρστυφχψω"
}


def escape(text: str) -> str:
    """Plain text so that LaTeX prints it as it is; a character that its fonts may lack is given by its code."""
    pieces = []
    for raised, letters in groupby(" ".join(text.split()), key=_SUPERSCRIPTS.__contains__):
        if raised:
            pieces.append(f"$^{{{''.join(_SUPERSCRIPTS[letter] for letter in letters)}}}$")
        else:
            pieces += [_character(letter) for letter in letters]
    return "".join(pieces)


def _character(letter: str) -> str:
    if letter in _COMMANDS:
        return _COMMANDS[letter]
    if letter in _GREEK:
        return rf"$\{_GREEK[letter]}$"
    # ASCII, and the accented letters that LaTeX's default UTF-8 input knows.
    if letter.isprintable() and (ord(letter) < 0x80 or (letter.isalpha() and ord(letter) < 0x180)):
        return letter
    return f"U+{ord(letter):04X}"


def ruled(table: str, grid: Grid, under: Sequence[str]) -> str:
    """A table of pandas with rules under groups of columns and above the baselines, and paragraphs under it."""
    lines = table.splitlines()
    top = lines.index(r"\toprule")
    if any(column.group for column in grid.columns):
        lines.insert(top + 2, _group_rules(grid))
    first = next((place for place, line in enumerate(grid.lines) if line.baseline), 0)
    if first:
        lines.insert(lines.index(r"\midrule") + 1 + first, r"\midrule")
    begin = next(place for place, line in enumerate(lines) if line.startswith(r"\begin{tabular}"))
    lines.insert(lines.index(r"\end{tabular}") + 1, "}")
    lines[begin:begin] = [r"\centering\small", _FIT]
    if under:
        end = lines.index(r"\end{table}")
        lines[end:end] = [r"\par\smallskip\raggedright\footnotesize", *(rf"{text}\par" for text in under)]
    return "\n".join(lines) + "\n"


def _group_rules(grid: Grid) -> str:
    rules, place = [], 1
    for group, columns in groupby(grid.columns, key=lambda column: column.group):
        width = len(list(columns))
        if group:
            rules.append(rf"\cmidrule(lr){{{place}-{place + width - 1}}}")
        place += width
    return "".join(rules)
