"""Entry points: each parses its arguments, builds, runs."""
