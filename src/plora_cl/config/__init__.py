"""Settings: schema, sources, precedence."""
