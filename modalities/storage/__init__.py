"""Where samples are stored: folders, tar shards, splits and torchvision's data sets, for every modality."""
