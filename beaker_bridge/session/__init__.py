"""The session itself: loaded, changed, merged, committed. Nothing here knows of WSGI or Pyramid."""
