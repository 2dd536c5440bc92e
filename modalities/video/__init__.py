"""Videos as sequences of tubelets."""

from modalities.video.config import VideoConfig
from modalities.video.modality import Video

__all__ = ["Video", "VideoConfig"]
