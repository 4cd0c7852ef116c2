"""Names that other frameworks have for our options: a message about such a name suggests ours."""

from __future__ import annotations


def _by_alias(names: dict[str, str]) -> dict[str, str]:
    return {alias: name for name, aliases in names.items() for alias in aliases.split()}


_STORE_ALIASES = {
    "type": "backend driver engine storage store",
    "data_dir": "cache_dir dir directory file_path",
    "url": "db host location port redis_url server servers uri",
    "key_prefix": "prefix",
}
SESSION_ALIASES = _by_alias(
    {
        **_STORE_ALIASES,
        "cookie_domain": "domain",
        "cookie_expires": "age cookie_age cookie_lifetime cookie_max_age expires lifetime max_age permanent_lifetime",
        "cookie_on_exception": "set_on_exception",
        "cookie_path": "path",
        "data_serializer": "serializer",
        "httponly": "cookie_httponly",
        "key": "cookie_key cookie_name name",
        "reissue_time": "timeout_trigger",
        "samesite": "cookie_samesite",
        "secret": "cookie_secret cookie_signature secret_key signing_key",
        "secure": "cookie_secure",
        "sign_algorithm": "hashalg",
        "timeout": "expire idle_timeout",
    }
)
REGION_ALIASES = _by_alias(
    {
        **_STORE_ALIASES,
        "data_dir": f"{_STORE_ALIASES['data_dir']} path",
        "expire": "default_timeout expiration_time expiry lifetime max_age ttl",
    }
)
