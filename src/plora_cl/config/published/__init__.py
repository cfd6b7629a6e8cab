"""The settings as others read them: a JSON Schema, and a commented file to fill in."""
