"""The ablation tables of docs/benchmarks.md: made by `recon bench`, kept in results/tables/, filled into the page.

    recon bench ablation-unsup3d --jobs 2 --device cpu
    python benchmarks/ablations.py keep --bench runs/bench ablation-unsup3d asymmetry recipes losses
    python benchmarks/ablations.py fill

A test holds that the page says what the results say.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

from recon_bench.report import TableReport, read_report
from recon_bench.tables import markdown_tables

from recon_toolkit.files import write_text

HERE = Path(__file__).parent
KEPT = HERE / "results" / "tables"
PAGE = HERE.parent / "docs" / "benchmarks.md"
IMAGES = HERE.parent / "docs" / "images"


def keep(bench: Path, names: list[str]) -> None:
    """Copy the report and the pictures of finished tables."""
    KEPT.mkdir(parents=True, exist_ok=True)
    for name in names:
        report = read_report(bench / name / "results.json")
        text = report.model_dump_json(indent=1) + "\n"
        write_text(KEPT / f"{name}.json", text.replace(str(Path.home()), "~"))
        for picture in ("curves", "bars"):
            if (bench / name / f"{picture}.png").is_file():
                shutil.copyfile(bench / name / f"{picture}.png", IMAGES / f"{name}-{picture}.png")


def made_with(report: TableReport) -> str:
    """Steps, machine and versions in one line."""
    versions = {name: " and ".join(found) for name, found in report.versions.items()}
    images = max(seed.images for row in report.rows for seed in row.seeds)
    return (
        f"*{report.budget} a row, seeds {', '.join(map(str, report.seeds))} for the base row, {images} images; "
        f"{'; '.join(report.processors)}, {'; '.join(report.devices)}, torch {versions['torch']}.*"
    )


def filled(page: str) -> str:
    """The page with its tables as the results say."""
    for path in sorted(KEPT.glob("*.json")):
        report = read_report(path)
        block = f"{markdown_tables(report, ('scores', 'differences'))}\n\n{made_with(report)}"
        if (IMAGES / f"{path.stem}-bars.png").is_file():
            block += f"\n\n![Scores of the rows of {path.stem}](images/{path.stem}-bars.png)"
        if (IMAGES / f"{path.stem}-curves.png").is_file():
            block += f"\n\n![Validation error of each row over the steps](images/{path.stem}-curves.png)"
        pattern = rf"<!-- table {path.stem} -->.*?<!-- end -->"
        text = f"<!-- table {path.stem} -->\n\n{block}\n\n<!-- end -->"
        page, found = re.subn(pattern, lambda _, text=text: text, page, count=1, flags=re.DOTALL)  # type: ignore[misc]
        if not found:
            raise SystemExit(f"{PAGE.name} has no place for the table: add <!-- table {path.stem} --><!-- end -->")
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    keeping = commands.add_parser("keep", help="copy finished tables into the results")
    keeping.add_argument("--bench", type=Path, default=Path("runs/bench"), help="the folder of `recon bench`")
    keeping.add_argument("names", nargs="+")
    commands.add_parser("fill", help="write the kept tables into the page")
    arguments = parser.parse_args()
    if arguments.command == "keep":
        keep(arguments.bench, arguments.names)
    write_text(PAGE, filled(PAGE.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
