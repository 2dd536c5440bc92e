"""Which tokens are context and which are targets: strategies on a grid with any number of axes."""

from jepa.masking.blocks import place_blocks, random_tokens, token_indices
from jepa.masking.checks import check_masking, flaw_of
from jepa.masking.configs import (
    BlockMaskConfig,
    CausalMaskConfig,
    FunctionMaskConfig,
    MaskingConfig,
    RandomMaskConfig,
    RandomTubeMaskConfig,
    Strategy,
    TubeMaskConfig,
)
from jepa.masking.groups import MaskGroups, mask_groups, own_generator
from jepa.masking.masks import Masks
from jepa.masking.nearest import nearest_target
from jepa.masking.sampling import sample_masks
from jepa.masking.together import sets_together, views_together
