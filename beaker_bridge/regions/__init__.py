"""Beaker's cache regions from settings. Nothing here knows of sessions."""
