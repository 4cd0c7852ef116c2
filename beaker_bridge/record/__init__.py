"""Records as bytes, and back. No module here knows where they are stored."""
