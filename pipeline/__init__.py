"""What a user runs: the command line, configuration, data sets and the verbs."""
