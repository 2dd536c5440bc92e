"""The I-JEPA steps and encoders of other packages at the sizes of a case, each as its documentation trains it.

Masks, images, number of tokens and sizes of the networks are ours. stable-pretraining predicts all target blocks in one
sequence, so ours does the same where the two are compared. lightly's step is that of its example.
"""

import copy
from collections.abc import Sequence
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.steps.cases import LEARNING_RATE, MOMENTUM, Ours, Precision


class Lightly:
    """lightly's I-JEPA: a masked timm encoder and its predictor."""

    def __init__(self, ours: Ours, precision: Precision) -> None:
        modules, self.utils = import_module("lightly.models.modules"), import_module("lightly.models.utils")
        sizes, dim = ours.config.model.predictor, ours.config.model.vit.width
        self.batch, self.precision, (self.masks,) = ours.batch, precision, ours.batch.masks
        self.encoder = modules.MaskedVisionTransformerTIMM(timm_vit(ours))
        self.predictor = modules.IJEPAPredictorTIMM(
            num_patches=self.encoder.sequence_length,
            depth=sizes.depth,
            mlp_dim=dim,
            predictor_embed_dim=sizes.width,
            num_heads=sizes.heads,
        )
        self.target_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        trained = [*self.encoder.parameters(), *self.predictor.parameters()]
        self.optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE)

    def step(self) -> object:
        """One training step."""
        images, context, targets = self.batch.views[0], self.masks.context, list(self.masks.target.unbind(1))
        self.utils.update_momentum(self.encoder, self.target_encoder, m=MOMENTUM)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            with torch.no_grad():
                encoded = self.target_encoder.encode(images)
                encoded = F.layer_norm(encoded, (encoded.shape[-1],))
                target = self.utils.apply_masks(encoded, targets)
                target = self.utils.repeat_interleave_batch(target, len(images), repeat=1)
            predicted = self.predictor(self.encoder.encode(images, idx_keep=context), [context], targets)
            loss = F.smooth_l1_loss(predicted, target)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())

    def modules(self) -> Sequence[nn.Module]:
        """All three networks."""
        return [self.encoder, self.predictor, self.target_encoder]


class StablePretraining:
    """stable-pretraining's I-JEPA, with our masks in place of its own."""

    def __init__(self, ours: Ours, precision: Precision) -> None:
        self.batch, self.precision, (masks,) = ours.batch, precision, ours.batch.masks
        sizes = ours.config.model.predictor
        method = import_module("stable_pretraining.methods").IJEPA
        self.model = method(timm_vit(ours), predictor_embed_dim=sizes.width, predictor_depth=sizes.depth)
        self.model.masking = _FixedMasks(masks.context, masks.target.flatten(1))
        self.model.train()
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE)

    def step(self) -> object:
        """One training step."""
        images = self.batch.views[0]
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            loss = self.model(images).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.model.encoder.update_teacher()
        return float(loss.detach())

    def modules(self) -> Sequence[nn.Module]:
        """All three networks."""
        return [self.model]


class _FixedMasks(nn.Module):
    def __init__(self, context: Tensor, target: Tensor) -> None:
        super().__init__()
        self.indices = SimpleNamespace(context_idx=context, target_idx=target)

    def forward(self, *_: Any) -> SimpleNamespace:
        return self.indices


class Forward:
    """An encoder's forward pass over all tokens of the batch, without gradients."""

    def __init__(self, encoder: nn.Module, images: Tensor, precision: Precision) -> None:
        self.encoder, self.images, self.precision = encoder.eval(), images, precision

    def step(self) -> object:
        """One forward pass."""
        bf16 = self.precision == "bf16"
        with torch.inference_mode(), torch.autocast(self.images.device.type, torch.bfloat16, enabled=bf16):
            return self.encoder(self.images)

    def modules(self) -> Sequence[nn.Module]:
        """The encoder."""
        return [self.encoder]


def timm_vit(ours: Ours) -> nn.Module:
    """Timm's vision transformer at the size of ours, without a class token."""
    vit, data = ours.config.model.vit, ours.config.data
    built: nn.Module = import_module("timm.models.vision_transformer").VisionTransformer(
        img_size=data.image_size,
        patch_size=data.patch_size,
        embed_dim=vit.width,
        depth=vit.depth,
        num_heads=vit.heads,
        mlp_ratio=vit.mlp_ratio,
        class_token=False,
        global_pool="",
        num_classes=0,
    )
    return built


def transformers_ijepa(ours: Ours) -> nn.Module:
    """Transformers' I-JEPA encoder at the size of ours."""
    package, vit, data = import_module("transformers"), ours.config.model.vit, ours.config.data
    config = package.IJepaConfig(
        hidden_size=vit.width,
        num_hidden_layers=vit.depth,
        num_attention_heads=vit.heads,
        intermediate_size=int(vit.width * vit.mlp_ratio),
        image_size=data.image_size,
        patch_size=data.patch_size,
    )
    built: nn.Module = package.IJepaModel(config)
    return built
