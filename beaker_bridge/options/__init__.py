"""The options: one table for sessions, one for regions, and one reader. No store, no request is known here."""
