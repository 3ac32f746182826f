"""What `farebox demo` runs besides Farebox itself: a scripted upstream, a configuration, and the show.

The scripted upstream also serves the tests and the benchmarks. Nothing here is imported by a serving process.
"""
