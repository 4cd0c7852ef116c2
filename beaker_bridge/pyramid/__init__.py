"""What Pyramid is given: the session factory, the tween and ``request.session``. Its imports are absolute."""
