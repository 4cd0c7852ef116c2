"""One WSGI request and its session. No module here knows Pyramid's configuration."""
