"""The steps of the official I-JEPA and V-JEPA code, imported from a checkout that the user has; nothing of it is here.

Their networks are called as their training scripts call them, with our masks, sizes and optimiser settings.
"""

import copy
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.steps.cases import LEARNING_RATE, MOMENTUM, Ours, Precision

_SHARED = {"mlp_ratio": 4.0, "qkv_bias": True, "norm_layer": lambda width: nn.LayerNorm(width, eps=1e-6)}


class Official:
    """A training step of a checkout of facebookresearch/ijepa (images) or facebookresearch/jepa (videos)."""

    def __init__(self, ours: Ours, precision: Precision, checkout: Path) -> None:
        self.batch, self.precision, self.device = ours.batch, precision, ours.batch.device
        self.is_video = ours.batch.views[0].dim() == 5
        self.encoder, self.predictor = (one.to(self.device) for one in self._networks(ours, checkout))
        self.target_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        trained = [one for network in (self.encoder, self.predictor) for one in network.parameters()]
        self.optimizer = torch.optim.AdamW([one for one in trained if one.requires_grad], lr=LEARNING_RATE)

    def _networks(self, ours: Ours, checkout: Path) -> tuple[nn.Module, nn.Module]:
        for name in [name for name in sys.modules if name.partition(".")[0] == "src"]:
            del sys.modules[name]  # both checkouts name their package `src`
        sys.path.insert(0, str(checkout))
        try:
            encoders = import_module("src.models.vision_transformer")
            predictors = import_module("src.models.predictor") if self.is_video else encoders
            self.select = import_module("src.masks.utils").apply_masks
            self.wrappers = import_module("src.models.utils.multimask") if self.is_video else None
        finally:
            sys.path.remove(str(checkout))
        vit, sizes, data = ours.config.model.vit, ours.config.model.predictor, ours.config.data
        side = data.image_size if self.is_video else [data.image_size]
        clip = {"num_frames": data.frames, "tubelet_size": data.tubelet} if self.is_video else {}
        common = {**_SHARED, **clip, "img_size": side, "patch_size": data.patch_size, "embed_dim": vit.width}
        with redirect_stdout(StringIO()):
            encoder = encoders.VisionTransformer(**common, depth=vit.depth, num_heads=vit.heads)
            extra: dict[str, Any] = {"use_mask_tokens": True, "num_mask_tokens": sizes.mask_tokens}
            if not self.is_video:
                extra = {"num_patches": encoder.patch_embed.num_patches}
            narrow = {"predictor_embed_dim": sizes.width, "depth": sizes.depth, "num_heads": sizes.heads}
            predictor = predictors.VisionTransformerPredictor(**common, **narrow, **extra)
        if self.wrappers is None:
            return encoder, predictor
        return self.wrappers.MultiMaskWrapper(encoder), self.wrappers.PredictorMultiMaskWrapper(predictor)

    def step(self) -> object:
        """One training step."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            loss = self._video_loss() if self.is_video else self._image_loss()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            for context, target in zip(self.encoder.parameters(), self.target_encoder.parameters(), strict=True):
                target.data.mul_(MOMENTUM).add_((1 - MOMENTUM) * context.detach().data)
        return loss.detach()

    def modules(self) -> Sequence[nn.Module]:
        """All three networks."""
        return [self.encoder, self.predictor, self.target_encoder]

    def _targets(self) -> Tensor:
        with torch.no_grad():
            encoded = self.target_encoder(self.batch.views[0])
            return F.layer_norm(encoded, (encoded.shape[-1],))

    def _image_loss(self) -> Tensor:
        (masks,) = self.batch.masks
        context, targets = [masks.context], list(masks.target.unbind(1))
        target = self.select(self._targets(), targets)
        predicted = self.predictor(self.encoder(self.batch.views[0], context), context, targets)
        return F.smooth_l1_loss(predicted, target)

    def _video_loss(self) -> Tensor:
        contexts = [masks.context for masks in self.batch.masks]
        places = [masks.target.flatten(1) for masks in self.batch.masks]
        targets = self.select(self._targets(), places, concat=False)
        predicted = self.predictor(self.encoder(self.batch.views[0], contexts), targets, contexts, places)
        return torch.stack([F.l1_loss(one, target) for one, target in zip(predicted, targets, strict=True)]).mean()
