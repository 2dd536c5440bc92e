"""All ways of benchmarks.loader make a batch of the same pictures."""

from pathlib import Path

import torch

from benchmarks import loader


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
