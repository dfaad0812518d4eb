"""Tests of the three packages, of what they promise together, and of the project's own rules."""
