"""A backend of Beaker's that keeps nothing."""

from beaker.container import MemoryNamespaceManager


class Losing(MemoryNamespaceManager):
    """Memory that forgets at once."""

    def set_value(self, key, value, expiretime=None):
        """Forget a value."""
