"""A site's sessions as its ``.ini`` has them, found without starting it. No module here needs click or rich."""
