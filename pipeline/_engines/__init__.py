"""Who does the work units of an extraction: this machine, or a Ray cluster."""
