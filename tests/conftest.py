"""What tests share."""

from pathlib import Path

import pytest
import torch
from PIL import Image


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Tests that draw from the global generator draw the same every time."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four small pictures of noise, without labels."""
    folder = tmp_path_factory.mktemp("photos")
    noise = torch.randint(256, (24, 24, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for index, pixels in enumerate(noise):
        Image.fromarray(pixels.numpy()).save(folder / f"{index:02}.png")
    return folder
