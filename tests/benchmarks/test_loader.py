"""All ways of benchmarks.loader and benchmarks.augment make a batch of the same pictures."""

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import augment, loader


def test_ways_to_a_batch_differ_in_type_and_crops_only(tmp_path: Path) -> None:
    loader.generate(tmp_path, 4)
    files = sorted(tmp_path.rglob("*.jpg"))
    ours = loader.our_way(tmp_path, files)(files)
    assert ours.dtype == torch.uint8
    assert torch.equal(ours, loader.our_way(tmp_path, files, jpeg_library=False)(files))
    for batch in (loader.published(files), loader.torchvision_v2(files), loader.our_way(tmp_path, files, True)(files)):
        assert batch.shape == ours.shape == (4, 3, 224, 224)
        assert batch.dtype == torch.float32
    errors = loader.pixel_errors(files)
    assert errors["mean"] < 0.1
    assert errors["max"] <= 16


def test_views_of_both_places_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["augment", "--quick", "--json", str(tmp_path / "augment.json")])
    threads = torch.get_num_threads()
    augment.main()
    torch.set_num_threads(threads)
    records = json.loads((tmp_path / "augment.json").read_text())["records"]
    assert [record["coloured"] for record in records] == [False, True]
    assert all(part > 0 for record in records for place in ("workers", "device") for part in record[place][0].values())
    assert (tmp_path / "augment.md").read_text().count("32 px") == 2
