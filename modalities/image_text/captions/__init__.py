"""Sources of captioned images, and the rules for captions."""
