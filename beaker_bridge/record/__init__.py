"""What is stored: a record as bytes, and back. Nothing here knows where it is stored."""
