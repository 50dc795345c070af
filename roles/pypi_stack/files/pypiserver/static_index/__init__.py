"""A static package index, kept up to date by pypiserver and served by nginx.

The package directory is the only truth. Everything below the index directory is made from it and can be made again,
byte for byte: pages per project (`simple/`), core metadata (`metadata/`) and what is known of each file (`records/`).

    errors     what a client did wrong, in words for the client
    names      file names and the releases they stand for
    zips       zip files that every tool reads the same way
    archive    a whole, honest wheel or sdist, and its metadata
    inspector  archives are read in processes of their own
    files      atomic and durable writes, locks that die with their process
    records    what is known of each project's files
    pages      the simple index as HTML and JSON
    legacy     PyPI's older JSON API
    owned      the register of names that are ours
    index      pages, records and core metadata on disk
    store      upload, remove, yank: the only code that changes anything
    watch      what changes in a directory
    sync       bring the index in line with the directory: once, or for ever
    verify     read everything, and say what is not as it was recorded
    form       upload forms, read as they come in
    guard      who may begin a project under a public name
    app        pypiserver with this store behind it
"""
