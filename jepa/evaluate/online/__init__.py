"""The probe during training, which shows whether a run learns and which checkpoint is the best."""
