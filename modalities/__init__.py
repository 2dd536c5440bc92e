"""The modalities that come with the framework; each fulfils the contract in `jepa.modality`."""
