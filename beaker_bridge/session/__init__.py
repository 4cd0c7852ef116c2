"""The session itself: loaded, changed, merged, committed. No module here imports WSGI code or Pyramid."""
