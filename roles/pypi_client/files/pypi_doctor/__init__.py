"""What is wrong between this machine and its package index, in plain words, and what to do about it.

Standard library of Python 3.9 and newer: `python3 pypi_doctor` on any machine. It asks nobody but the index, and says no secret.
"""
