"""Pyramid's side: the session factory, the tween and ``request.session``. Imports are absolute."""
