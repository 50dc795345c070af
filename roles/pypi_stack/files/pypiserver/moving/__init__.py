"""Moving in and out: files that were released elsewhere come into the store, and all of it goes into a plain directory.

Sources say which files there are and what is known of them (`offers`); nothing of theirs is trusted but the names, hashes, times and
yanks that have the right form. Every file then is checked as an upload is. What is here already is left alone, so whatever was broken
off goes on where it was.

    offers     what a source says of a file, which projects are wanted, and what a run reports
    manifest   the JSON that move-out writes, and move-in reads
    directory  a plain directory, one by move-out, or devpi's export
    web        requests to an index, with a login for that index only
    simple     any simple index: HTML (PEP 503) or JSON (PEP 691)
    incoming   from a source into the store
    outgoing   from the store into a plain directory
"""
