"""Videos as sequences of tubelets."""

from modalities.video.modality import Video, VideoConfig

__all__ = ["Video", "VideoConfig"]
