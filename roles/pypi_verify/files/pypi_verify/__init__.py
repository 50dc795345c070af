"""Look at a host that serves the index, and say in plain words what is wrong and what to do. Changes nothing.

Runs as root on the host's own Python, from 3.9 on.

    findings     what is wrong, and who is asked
    system       disks, permissions, clock
    certificate  what clients are shown
    backups      how the last one went
    issuers      the keys that pipelines' identity tokens are verified by
    containers   what runs, of which image; and the index, which the container of pypiserver reads
"""
