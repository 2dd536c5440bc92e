"""Captioned images: image patches and words as one set of tokens, over two towers of open_clip."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Generator, Tensor, nn

from jepa.encoder import TokenEncoder
from jepa.masking import BlockMaskConfig, MaskingConfig, Masks, check_masking
from jepa.matching import MatchedModality
from jepa.modality import Samples, Split, Task
from jepa.networks import Contrast, NetworksConfig
from jepa.registry import MODALITIES
from modalities.caption_sources import CaptionSource, open_captions
from modalities.captioned import Captioned
from modalities.captioned_scenes import CaptionedScenes
from modalities.image_text_encoder import TwoTowers, View
from modalities.image_text_masks import Layout, Objectives, sample_objectives
from modalities.image_views import center_crop, random_resized_crop
from modalities.open_clip_towers import TowerSizes, Towers, build_towers
from modalities.scenes import CLASSES, ScenesConfig, default_cache_dir
