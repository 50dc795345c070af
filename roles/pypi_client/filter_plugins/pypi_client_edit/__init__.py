"""Filters of the role pypi_client: the new text of a client's file from its present text and what we want in it.

What is not ours stays, byte for byte, and what ours takes the place of stays as a comment, for `remove` to bring back. Each editor takes the text of one file ('' when absent) and returns the
new one; `remove` takes our part out again. INI and TOML are parsed again afterwards: a file is never replaced by
one that its tool cannot read or that says something else. Errors never quote a file: it may hold secrets.

What was put where is remembered on the host, without secrets: what other variables or users ask for later is put in
after the old has been taken out.
"""
