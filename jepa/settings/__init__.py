"""From a command line to the settings of a run: layers, what the data completes, what has no effect, the schema."""
