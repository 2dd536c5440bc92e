"""Share trained networks: a folder with a generated model card, the Hugging Face Hub, small encoders by name."""
