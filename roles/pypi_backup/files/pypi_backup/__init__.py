"""Backups of the private PyPI's packages, by restic, and the way back. Standard library of Python 3.9."""
