"""A static package index, kept up to date by pypiserver and served by nginx.

The package directory is the only truth. Everything below the index directory is made from it and can be made again,
byte for byte: pages per project (`simple/`), core metadata (`metadata/`) and what is known of each file (`records/`).

    errors    what a client did wrong, in words for the client
    names     file names and the releases they stand for
    archive   a whole, honest wheel or sdist, and its metadata
    files     atomic and durable writes, locks that die with their process
    records   what is known of each project's files
    pages     the simple index as HTML and JSON
    store     upload, remove, yank: the only code that changes anything
    sync      bring the index in line with the directory: once, or for ever
    app       pypiserver with this store behind it
"""
