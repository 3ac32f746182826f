"""Room: processes.

Owns the supervisor, sockets, reload and drain, the command line and the demo with its scripted upstream. The
only room that puts others together; nothing imports it.
"""
