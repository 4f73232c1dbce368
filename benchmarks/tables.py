"""The tables of docs/renderers.md, made from results/*.json: python benchmarks/tables.py writes them into the page.

A test holds that the page says what the results say.
"""

from __future__ import annotations

import re
from pathlib import Path

from renderers import Comparison
from rendering import Rendering

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "renderers.md"


def _rows(*rows: list[str]) -> str:
    head, *rest = rows
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rest))


def trained(comparison: Comparison) -> str:
    """What each renderer's run of the quick pipeline came to."""
    rows = [["renderer", "MAD × constant depth", "SIDE × constant depth", "relief slope", "findings"]]
    for run in comparison.trained:
        findings = ", ".join(run.findings) or "none"
        rows.append(
            [
                f"`{run.renderer}`",
                f"{run.mad_ratio:.3f} ({run.mad:.1f}°)",
                f"{run.side_ratio:.3f} ({run.side:.2f})",
                f"{run.slope:.2f}",
                findings,
            ]
        )
    return _rows(*rows)


def conformance(comparison: Comparison) -> str:
    """Evenness by pose, and the verdict of the suite."""
    poses = list(next(iter(comparison.evenness.values())))
    rows = [["renderer", *poses, "verdict"]]
    for label, spread in comparison.evenness.items():
        verdict = comparison.verdicts.get(label, "")
        rows.append([f"`{label}`", *(f"{spread[pose]:.2f}" for pose in poses), verdict])
    return _rows(*rows)


def speed(results: Rendering) -> str:
    """Forward and backward of depth and colour, in milliseconds, by batch and size."""
    columns = [(64, 1), (64, 16), (64, 64), (128, 64), (256, 16), (512, 16)]
    rows = [["renderer", *(f"{batch} × {size}²" for size, batch in columns), "peak at 64 × 64²"]]
    labels = dict.fromkeys(case.renderer for case in results.cases)
    for label in labels:
        cases = [results.find(label, "all", size, batch) for size, batch in columns]
        middle = results.find(label, "all", 64, 64)
        times = [
            f"{case.timing.median_ms:.{0 if case.timing.median_ms > 99 else 1}f}" if case else "–" for case in cases
        ]
        rows.append([label, *times, f"{middle.peak_mib:.0f} MiB" if middle and middle.peak_mib else "–"])
    return _rows(*rows)


def filled(page: str) -> str:
    """The page with its tables as the results say."""
    comparison = Comparison.model_validate_json((HERE / "results" / "renderers.json").read_bytes())
    results = Rendering.model_validate_json((HERE / "results" / "rendering-cpu.json").read_bytes())
    tables = {"trained": trained(comparison), "conformance": conformance(comparison), "speed": speed(results)}
    for name, table in tables.items():
        block = f"<!-- {name} -->\n\n{table}\n\n<!-- end -->"
        pattern = rf"<!-- {name} -->(?:\n\n\|.*?\n\n<!-- end -->)?"
        page = re.sub(pattern, lambda _, block=block: block, page, count=1, flags=re.DOTALL)  # type: ignore[misc]
    return page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
