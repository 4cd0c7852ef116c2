"""One WSGI request and its session. Nothing here knows of Pyramid's configuration."""
