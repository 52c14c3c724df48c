"""The feature cache: schema, fingerprint, shards, catalogue, reading, export. Knows no model and no command line."""
