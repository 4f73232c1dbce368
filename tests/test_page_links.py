"""Every page that the toolkit writes leads to files that are there; and what a run on photographs says of itself."""

import json
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pandas as pd
import pytest
from PIL import Image
from recon_bench.runner import make_table, plan_table

from recon_toolkit import load_pipeline
from recon_toolkit.engine.run import run_pipeline
from recon_toolkit.plugins import load_plugins


class Links(HTMLParser):
    """Collects what a page refers to."""

    def __init__(self, page):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "src") and value:
                self.links.append(value)
            if name == "id":
                self.anchors.add(value)


def followed(page: Path) -> int:
    """How many links of a page lead somewhere; all of them must."""
    found, count = Links(page), 0
    for link in found.links:
        parts = urlsplit(link)
        if parts.scheme in ("data", "blob"):
            continue
        assert not parts.scheme, f"{page} leads out of its folder: {link}"
        if parts.path:
            assert (page.parent / unquote(parts.path)).is_file(), f"{page} has a dead link: {link}"
        else:
            assert parts.fragment in found.anchors, f"{page} has a dead link: {link}"
        count += 1
    return count


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for split, count in (("train", 10), ("test", 6)):
        (folder / split).mkdir()
        for i in range(count):
            Image.effect_noise((48, 48), 20 + i).convert("RGB").save(folder / split / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def run(tiny, photographs, tmp_path_factory):
    """A run on photographs, which have no ground truth."""
    resolved = load_pipeline(tiny, ["dataset={name: image-folder}", "training.steps=2"])
    out = tmp_path_factory.mktemp("run") / "photographs"
    return out, run_pipeline(resolved, out=out, data=photographs, device="cpu")


def test_without_ground_truth_a_run_has_loss_psnr_and_ssim_of_held_out_images(run):
    out, summary = run
    assert summary.mad is None and summary.images == 6
    assert 0 < summary.psnr < 60 and -1 <= summary.ssim <= 1
    said = json.loads((out / "summary.json").read_text())
    assert said["held_out_loss"] == pytest.approx(summary.held_out_loss)
    logged = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    last = [entry for entry in logged if entry["kind"] == "validation"][-1]
    assert last["held_out_loss"] == pytest.approx(summary.held_out_loss, rel=1e-4)
    page = (out / "index.html").read_text()
    scores = pd.read_csv(out / "scores.csv")  # what tables are made of
    assert len(scores) == 6 and scores["psnr"].mean() == pytest.approx(summary.psnr)
    assert "PSNR" in page and "SSIM" in page and f"{summary.held_out_loss:.3f}" in page and "SIDE" not in page


def test_all_links_of_a_runs_pages_lead_to_files(run):
    out, _ = run
    pages = sorted(out.rglob("*.html"))
    assert {page.name for page in pages} >= {"index.html"}
    assert sum(followed(page) for page in pages) >= 8


def test_a_run_without_any_held_out_image_has_no_dead_link_either(tiny, photographs, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to(photographs / "train")
    resolved = load_pipeline(tiny, ["dataset={name: image-folder}", "training.steps=1"])
    summary = run_pipeline(resolved, out=tmp_path / "run", data=tmp_path / "data", device="cpu")
    assert summary.psnr is None and not (tmp_path / "run" / "scores.csv").exists()
    assert followed(tmp_path / "run" / "index.html") >= 5


def test_all_links_of_a_reconstructions_page_lead_to_files(run, photographs, tmp_path, recon):
    arguments = ("--run", run[0], "--out", tmp_path / "found", "--no-detect", "--write", "maps,glb,obj,page,pages")
    code, _, err = recon("reconstruct", photographs / "test" / "0.png", photographs / "test" / "1.png", *arguments)
    assert code == 0, err
    pages = sorted((tmp_path / "found").rglob("*.html"))
    assert pages and sum(followed(page) for page in pages) > 0


def test_all_links_of_a_tables_page_lead_to_files(tiny, tmp_path):
    rows = "{full: {}, other: {training: {learning_rate: 1e-3}}}"
    (tmp_path / "toy.yaml").write_text(f"pipeline: {tiny}\nbudget: {{steps: 1}}\nrows: {rows}\n")
    plan = plan_table(str(tmp_path / "toy.yaml"), load_plugins(), out=tmp_path / "bench")
    made = make_table(plan, out=tmp_path / "bench", in_process=True)
    assert made.complete
    assert followed(made.folder / "index.html") >= 5
