"""The registry room: bytes and JSON in content-addressed files and real git commits.

Nothing here knows what a tensor means, prints, or reads the environment.
"""
