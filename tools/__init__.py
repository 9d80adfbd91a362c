"""The commands of a maintainer, and what assignment.py calls."""
