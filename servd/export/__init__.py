"""The same plan for other engines: pure functions from a configuration to text."""
