"""Room: configuration files to frozen settings.

Owns the file format (the replaced system's keys and ours), its validation, the model table and the JSON
Schema. Promises that every problem of every file is reported at once with its place, that prices stay exact
decimals, and that nothing is filled in silently. Does not read secrets' values, open sockets or touch the
store.
"""
