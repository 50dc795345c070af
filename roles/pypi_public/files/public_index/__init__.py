"""Public packages on demand: fetched once, checked, kept, and served by nginx like private ones.

errors      why a request is refused, in words for the client
names       project names, file names and versions
config      what the operator wants
transport   requests to one upstream, bounded in time and memory
listing     what an upstream says of a project's files
advisories  which releases are malicious
policy      which files are offered, and when that changes
pages       the simple index as HTML and JSON
legacy      the older JSON API
cache       what is kept on disk, and for how long
shares      who gets a place when many want one
locks       one thread at a time for each project
catalogue   listings from disk and upstream
download    one file from upstream to any number of readers
mirror      all of that together
server      HTTP towards nginx
warm        files fetched before anybody asks
"""
