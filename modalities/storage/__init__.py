"""How samples are stored, for every modality: folders, tar shards, splits and torchvision's data sets."""
