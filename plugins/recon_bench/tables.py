"""A report as Markdown, LaTeX (booktabs), CSV and JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recon_bench.layout import Cell, Grid, Line, footnotes, grids, notes
from recon_bench.report import RowReport, TableReport
from recon_toolkit.files import write_text

if TYPE_CHECKING:
    import pandas as pd


import unicodedata
from itertools import groupby

MARKDOWN, LATEX, CSV, JSON = "table.md", "table.tex", "table.csv", "results.json"


def write_tables(report: TableReport, folder: Path) -> list[Path]:
    """Write ``table.md``, ``table.tex``, ``table.csv`` and ``results.json`` into a folder; return their paths.

    Raises:
        DataError: the disk is full or the folder cannot be written.
    """
    texts = {
        MARKDOWN: markdown(report),
        LATEX: latex(report),
        CSV: frame(report).to_csv(index=False, lineterminator="\n"),
        JSON: report.model_dump_json(indent=1) + "\n",
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def frame(report: TableReport) -> pd.DataFrame:
    """The raw numbers, one line a row of the table and one column a number; what is absent is NaN.

    Of every metric: ``mad`` (mean), ``mad_std``, ``mad_seed_std``, ``mad_ratio``, ``mad_best``, ``mad_difference``
    with ``_against``, ``_low``, ``_high``, ``_seeds``, ``_images``, ``_significant``, ``_small`` and ``_untrained``,
    ``mad_published`` and ``mad_published_std``.
    """
    import pandas as pd

    return pd.DataFrame([_numbers(row, report.metrics) for row in report.rows])


def _numbers(row: RowReport, metrics: Sequence[str]) -> dict[str, Any]:
    done = [seed for seed in row.seeds if seed.status == "done"]
    values: dict[str, Any] = {
        "row": row.name,
        "status": row.status,
        "base": row.base,
        "baseline": row.baseline,
        "pipeline": row.pipeline,
        "changes": "; ".join(row.changes),
        "seeds": len(done),
        "failed": sum(seed.status == "failed" for seed in row.seeds),
        "cause": "; ".join(dict.fromkeys(seed.cause for seed in row.seeds if seed.cause)),
        "images": max((seed.images for seed in done), default=None),
        "steps": max((seed.steps for seed in done), default=None),
        "seconds": row.seconds,
        "images_per_second": row.images_per_second,
        "peak_memory_mb": row.peak_memory_mb,
    }
    for name in metrics:
        score, quoted = row.scores.get(name), row.published.get(name)
        difference = score.difference if score is not None else None
        values[name] = score.mean if score else None
        values |= {f"{name}_{part}": getattr(score, part, None) for part in ("std", "seed_std", "ratio", "best")}
        values[f"{name}_difference"] = difference.mean if difference else None
        for part in ("against", "low", "high", "seeds", "images", "significant", "small", "untrained"):
            values[f"{name}_difference_{part}"] = getattr(difference, part, None)
        values |= {f"{name}_published": quoted.mean if quoted else None}
        values |= {f"{name}_published_std": quoted.std if quoted else None}
    return values


def markdown(report: TableReport) -> str:
    """The tables, footnotes and notes as Markdown."""
    blocks = [f"# {_markdown_escape(report.name)}"]
    blocks += [_paragraph(report.description)] if report.description else []
    blocks.append(markdown_tables(report))
    blocks += [_paragraph(text) for text in notes(report)]
    return "\n\n".join(blocks) + "\n"


def markdown_tables(report: TableReport, keys: Collection[str] | None = None) -> str:
    """The tables alone, with their footnotes.

    Args:
        report: what was found.
        keys: which of ``scores``, ``differences``, ``cost`` and ``settings``; all if None.
    """
    blocks = []
    for grid in grids(report):
        if keys is not None and grid.key not in keys:
            continue
        align = ["left" if grid.prose or place == 0 else "right" for place in range(len(grid.columns))]
        table = _words(grid, _markdown_cell, [_markdown_escape(column.heading) for column in grid.columns])
        # Numbers are text already: tabulate must not read and round them again.
        text = table.to_markdown(index=False, disable_numparse=True, colalign=align)
        blocks += [f"**{_markdown_escape(grid.caption)}**", str(text)]
        if grid.key == "scores" and footnotes(report):
            listed = (f"[{place}] {_markdown_escape(text)}" for place, text in enumerate(footnotes(report), start=1))
            blocks.append("  \n".join(listed))
    return "\n\n".join(blocks)


def _words(grid: Grid, render: Callable[[Cell, Line], str], headings: Sequence[Any]) -> pd.DataFrame:
    import pandas as pd

    rows = [[render(cell, line) for cell in line.cells] for line in grid.lines]
    return pd.DataFrame(rows, columns=pd.Index(headings), dtype=object)


def _markdown_cell(cell: Cell, line: Line) -> str:
    text = _markdown_escape(cell.text)
    if text and (cell.bold or line.baseline):
        mark = "**" if cell.bold else "*"
        text = f"{mark}{text}{mark}"
    return " ".join([text, *(f"[{number}]" for number in cell.footnotes)]).strip()


def _markdown_escape(text: str) -> str:
    """Plain text for a line or a cell of GitHub's Markdown; underscores inside words need no escape there."""
    text = re.sub(r"([\\`*|<>~$]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;))", r"\\\1", " ".join(text.split()))
    return re.sub(r"(?<=\])(?=\()", r"\\", text)  # no link


def _paragraph(text: str) -> str:
    """The same for a line of its own, which must be neither a heading, a list nor a quotation."""
    return re.sub(r"^(?=[#+-])", r"\\", _markdown_escape(text))


def latex(report: TableReport) -> str:
    """The tables as LaTeX with the packages booktabs and graphicx; the notes stand under the scores."""
    slug = re.sub(r"[^a-z0-9]+", "-", report.name.lower()).strip("-") or "table"
    parts = [r"% \usepackage{booktabs,graphicx} goes into the preamble."]
    for grid in grids(report):
        title = report.description.rstrip(".") if grid.key == "scores" and report.description else grid.caption
        under = [f"$^{{{n}}}$ {latex_escape(text)}" for n, text in enumerate(footnotes(report), start=1)]
        under += [latex_escape(text) for text in notes(report)]
        body = _words(grid, _latex_cell, _latex_headings(grid)).to_latex(
            index=False,
            escape=False,
            caption=f"{latex_escape(report.name)}: {latex_escape(title)}.",
            label=f"tab:{slug}-{grid.key}",
            position="tb",
            column_format=r"lp{.5\linewidth}p{.2\linewidth}" if grid.prose else "l" + "r" * (len(grid.columns) - 1),
            multicolumn_format="c",
        )
        parts.append(ruled(body, grid, under if grid.key == "scores" else []))
    return "\n".join(parts)


def _latex_headings(grid: Grid) -> list[Any]:
    if not any(column.group for column in grid.columns):
        return [latex_escape(column.label) for column in grid.columns]
    return [(latex_escape(column.group), latex_escape(column.label)) for column in grid.columns]


def _latex_cell(cell: Cell, line: Line) -> str:
    text = latex_escape(cell.text)
    if text and (cell.bold or line.baseline):
        text = rf"\{'textbf' if cell.bold else 'textit'}{{{text}}}"
    return text + "".join(f"$^{{{number}}}$" for number in cell.footnotes)


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


def latex_escape(text: str) -> str:
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
    for group, columns in grid.groups:
        width = len(columns)
        if group:
            rules.append(rf"\cmidrule(lr){{{place}-{place + width - 1}}}")
        place += width
    return "".join(rules)
