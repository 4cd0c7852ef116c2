"""Redis sessions: the store contract on a real Redis, Cluster and Sentinel, and what only those do."""

from __future__ import annotations

import logging
import os
import pickle
import re
import secrets
import socket
import sys
import threading
import traceback
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from beaker.cache import clsmap

from beaker_bridge.exceptions import SessionConflictError, SessionStoreError, SettingsError
from beaker_bridge.options.reader import given, prefixed, read_options
from beaker_bridge.stores import _breaker, _redis_swap, open_store
from beaker_bridge.stores._server import LEASE
from beaker_bridge.stores.base import Record
from beaker_bridge.testing.contract import PATIENCE, BeakerStoreContract, text, together
from tests import machine
from tests.forks import as_child
from tests.servers import free_port
from tests.servers.proxy import Proxy

ID = "0123456789abcdef" * 2


def opened(**options):
    """Return a store of the given options."""
    return open_store(read_options(given(options)))


def key_of(session_id):
    """Return Beaker's key of a session."""
    return f"beaker_cache:{session_id}:session"


class RedisContract(BeakerStoreContract):
    """What both kinds of Redis keep beside the contract."""

    @pytest.fixture
    def client(self):
        """Return a client of the test's own."""
        raise NotImplementedError

    def test_the_record_is_beakers(self, client, session_id, stored):
        """The record stands under Beaker's key, as Beaker pickles it."""
        assert client.get(key_of(session_id)) == stored.raw
        assert isinstance(pickle.loads(stored.raw), str)

    def test_the_server_forgets_a_record_when_it_expires(self, store, client, session_id, raw):
        """An expiry is the server's, in milliseconds; a swap sets it anew, or takes it away."""
        lives = []
        record = None
        for expires_in in (100.5, 50, None, 0.0001):
            record = store.swap(session_id, record, raw(), expires_in).found
            lives.append(client.pttl(key_of(session_id)))

        assert 50_000 < lives[0] <= 100_500
        assert 0 < lives[1] <= 50_000
        assert lives[2] == -1
        assert lives[3] in (-2, 0, 1)

    def test_a_swap_that_was_made_already_renews_the_expiry(self, store, client, session_id, stored):
        """Writing again what stands there gives it the expiry that was asked for."""
        store.swap(session_id, stored, stored.raw, 100)

        assert 0 < client.pttl(key_of(session_id)) <= 100_000

    def test_scripts_that_the_server_forgot_are_sent_again(self, store, client, session_id, raw):
        """After ``SCRIPT FLUSH``, swaps and locks work as before."""
        for _ in range(2):
            client.script_flush()
            with store.lock(session_id, PATIENCE):
                client.script_flush()

                assert store.swap(session_id, store.read(session_id), raw()).made

                client.script_flush()

        with store.lock(session_id, 0.01):
            pass

    def test_the_lock_expires(self, store, client, session_id):
        """The lock of a holder that was killed falls by itself, after five times the wait at least."""
        with store.lock(session_id, 1):
            short = client.pttl(f"beaker_bridge_lock:{session_id}")
        with store.lock(session_id, LEASE):
            long = client.pttl(f"beaker_bridge_lock:{session_id}")

        assert 0 < short <= LEASE * 1000
        assert LEASE * 1000 < long <= 5 * LEASE * 1000

    def test_a_lock_that_fell_is_not_taken_from_the_next_holder(self, store, client, session_id):
        """Who held a lock for longer than it lasts does not release it for the one who has it now."""
        with store.lock(session_id, PATIENCE):
            client.set(f"beaker_bridge_lock:{session_id}", "another's", px=100_000)

        assert client.get(f"beaker_bridge_lock:{session_id}") == b"another's"

    def test_a_forked_process_has_its_own_connections(self, store, session_id, stored, raw):
        """Parent and child that use one store after a fork get their own answers."""
        new = raw()
        child = os.fork()
        if child == 0:
            try:
                for _ in range(50):
                    assert store.read(session_id) == stored
                assert store.swap(session_id, stored, new).made
                os._exit(0)
            finally:
                os._exit(1)
        other_id = secrets.token_hex(16)
        for _ in range(50):
            assert store.read(other_id) is None

        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert store.read(session_id).raw == new

    def test_a_child_does_not_wait_for_a_thread_that_was_connecting(self, make_store, session_id, stored):
        """A process that was forked while a thread of its parent was connecting connects itself."""
        store = make_store()
        with store._connecting.get(), as_child():
            assert store.read(session_id) == stored

    def test_a_prefix_is_no_pattern(self, options, session_id, raw):
        """Only what begins with the prefix is listed, whatever its characters mean to Redis."""
        store, other = (opened(**{**options, "key_prefix": prefix}) for prefix in ("a*[b-c]?\\^", "ab[b-c]x\\^"))
        for one in (store, other):
            one.swap(session_id, None, raw())

        assert list(store.ids()) == [session_id]

        store.swap(session_id, store.read(session_id), None)

        assert list(store.ids()) == []
        assert list(other.ids()) == [session_id]

        other.swap(session_id, other.read(session_id), None)
        for one in (store, other):
            one.close()

    def test_a_closed_store_connects_again(self, store, session_id, stored):
        """A store can be closed, twice, and be used again."""
        store.close()
        store.close()

        assert store.read(session_id) == stored

    @pytest.mark.parametrize("decode_responses", [False, True])
    def test_a_client_of_the_applications(self, make_client, name, session_id, raw, decode_responses):
        """A client that the application has is used, whatever it decodes, and is left open."""
        client = make_client(decode_responses)
        store = opened(**name(client))
        new = raw()

        assert store.read(session_id) is None
        assert store.swap(session_id, None, new).made
        assert store.swap(session_id, None, raw()).found.raw == new
        assert store.read(session_id).raw == new
        assert session_id in list(store.ids())
        assert (session_id, store.read(session_id)) in [found for batch in store.scan() for found in batch]

        with store.lock(session_id, PATIENCE):
            assert self._is_refused(store, session_id)

        store.close()

        assert client.exists(key_of(session_id)) == 1

        client.close()


class TestRedisStore(RedisContract):
    """``type = ext:redis``."""

    @pytest.fixture
    def options(self, redis_server):
        return {"type": "ext:redis", "url": redis_server.url}

    @pytest.fixture
    def unreachable(self):
        return {"type": "ext:redis", "url": f"redis://127.0.0.1:{free_port()}"}

    @pytest.fixture
    def client(self, redis_server):
        with redis_server.client() as client:
            yield client

    @pytest.fixture
    def make_client(self, redis_server):
        return lambda decode_responses: redis.Redis.from_url(redis_server.url, decode_responses=decode_responses)

    @pytest.fixture
    def name(self):
        """Return what names a client in the options."""
        return lambda client: {"type": "ext:redis", "url": client}

    def test_an_uncontended_write_is_two_round_trips(self, store, client, redis_server, session_id, raw):
        """A read is one GET, a swap one EVALSHA, a lock one SET and one EVALSHA, and nothing else is sent."""
        # The connections greet, and the server learns the scripts.
        client.ping()
        store.swap(session_id, None, raw())
        with store.lock(session_id, PATIENCE):
            pass
        with redis_server.client() as other_client, other_client.monitor() as monitor:
            store.swap(session_id, store.read(session_id), raw(), 100)
            with store.lock(session_id, PATIENCE):
                pass
            client.echo("the end")
            sent = []
            for command in monitor.listen():
                # What a script does inside the server is no round trip.
                if command["client_type"] != "lua":
                    sent.append(command["command"].split()[0])
                if "the end" in command["command"]:
                    break

        assert sent == ["GET", "EVALSHA", "EVALSHA", "EVALSHA", "ECHO"]


class TestRedisWithoutScripts(TestRedisStore):
    """``type = ext:redis`` with a user who may run no scripts."""

    @pytest.fixture
    def options(self, redis_server):
        with redis_server.client() as client:
            client.execute_command("ACL", "SETUSER", "scriptless", "on", ">p", "~*", "&*", "+@all", "-@scripting")
        return {"type": "ext:redis", "url": f"redis://scriptless:p@127.0.0.1:{redis_server.port}"}

    def test_an_uncontended_write_is_two_round_trips(self, store, client, redis_server, session_id, raw):
        """That there are no scripts is found out once; from then on a swap has two round trips."""
        client.ping()
        record = store.swap(session_id, None, raw()).found
        with redis_server.client() as other_client, other_client.monitor() as monitor:
            assert store.swap(session_id, record, raw(), 100).made
            assert not store.swap(session_id, record, raw()).made

            client.echo("the end")
            sent = []
            for command in monitor.listen():
                sent.append(command["command"].split()[0])
                if "the end" in command["command"]:
                    break

        assert sent == ["WATCH", "GET", "MULTI", "SET", "EXEC", "WATCH", "GET", "UNWATCH", "ECHO"]


class TestValkey(TestRedisStore):
    """``type = ext:redis`` on Valkey."""

    @pytest.fixture
    def redis_server(self, valkey_server):
        """Return a Valkey in the place of a Redis."""
        return valkey_server


class TestValkeyWithoutScripts(TestRedisWithoutScripts):
    """``type = ext:redis`` on Valkey, with a user who may run no scripts."""

    @pytest.fixture
    def redis_server(self, valkey_server):
        """Return a Valkey in the place of a Redis."""
        return valkey_server


class TestRedisClusterStore(RedisContract):
    """``type = ext:rediscluster``."""

    @pytest.fixture
    def options(self, redis_cluster):
        return {"type": "ext:rediscluster", "urls": redis_cluster.url}

    @pytest.fixture
    def namespace(self, redis_cluster, session_id):
        machine.backend("ext:rediscluster")
        return clsmap["ext:rediscluster"](session_id, urls=redis_cluster.url)

    @pytest.fixture
    def client(self, make_client):
        with make_client(False) as client:
            yield client

    @pytest.fixture
    def make_client(self, redis_cluster):
        port = redis_cluster.servers[0].port
        return lambda decode_responses: redis.RedisCluster(
            host="127.0.0.1", port=port, decode_responses=decode_responses
        )

    @pytest.fixture
    def name(self):
        """Return what names a client in the options."""
        return lambda client: {"type": "ext:rediscluster", "urls": client}

    def test_sessions_are_spread(self, store, redis_cluster, raw):
        """Sessions of one store stand on every node."""
        for _ in range(60):
            store.swap(secrets.token_hex(16), None, raw())
        sizes = []
        for node in redis_cluster.servers:
            with node.client() as client:
                sizes.append(client.dbsize())

        assert all(sizes)

    def test_a_user_and_a_password_of_their_own(self, redis_cluster, session_id, raw):
        """``username`` and ``password`` are used where the addresses name none; a wrong one opens nothing."""
        for node in redis_cluster.servers:
            with node.client() as client:
                client.execute_command("ACL", "SETUSER", "sessions", "on", ">a-password", "~*", "&*", "+@all")
        login = {"type": "ext:rediscluster", "urls": redis_cluster.url, "username": "sessions"}
        store = opened(**login, password="a-password")

        assert store.swap(session_id, None, raw()).made
        with pytest.raises(SessionStoreError):
            opened(**login, password="another").read(session_id)

    def test_one_address_is_enough(self, redis_cluster, session_id, raw):
        """A cluster is found from any of its nodes; spaces around the commas do no harm."""
        first, *_others = redis_cluster.url.split(",")
        for urls in (first, f" {first} , {first}"):
            store = opened(type="ext:rediscluster", urls=urls)

            assert store.swap(session_id, store.read(session_id), raw()).made

            store.close()


class TestRedisSentinelStore(RedisContract):
    """``type = ext:redis`` with the address of sentinels."""

    @pytest.fixture
    def options(self, redis_sentinels):
        return {"type": "ext:redis", "url": redis_sentinels.url}

    @pytest.fixture
    def namespace(self, redis_sentinels, session_id):
        # Beaker's own Redis backend knows no sentinels: it is given the master.
        from beaker.cache import clsmap

        return clsmap["ext:redis"](session_id, url=redis_sentinels.master.url)

    @pytest.fixture
    def client(self, redis_sentinels):
        with redis_sentinels.master.client() as client:
            yield client

    @pytest.fixture
    def make_client(self, redis_sentinels):
        hosts = [("127.0.0.1", sentinel.port) for sentinel in redis_sentinels.sentinels]
        return lambda decode_responses: redis.sentinel.Sentinel(hosts).master_for(
            "main", decode_responses=decode_responses
        )

    @pytest.fixture
    def name(self):
        """Return what names a client in the options."""
        return lambda client: {"type": "ext:redis", "url": client}


#: A password with what has a meaning in an address.
PASSWORD = "p@ss/w:rd?#%41 ü"


@pytest.fixture
def allow(request):
    """Return what makes a user of some servers, who may touch the keys of a pattern alone."""
    with ExitStack() as ended:

        def allow(user, keys, *servers):
            for server in servers:
                client = ended.enter_context(server.client())
                client.execute_command("ACL", "SETUSER", user, "on", f">{PASSWORD}", f"~{keys}", "&*", "+@all")
                ended.callback(client.execute_command, "ACL", "DELUSER", user)

        yield allow


@pytest.mark.parametrize("kind", ["ext:redis", "ext:rediscluster"])
@pytest.mark.parametrize("prefix", ["shop:", "{shop}:"])
def test_a_prefix_and_a_user_who_is_held_to_it(kind, prefix, request, allow, session_id, raw):
    """With ``key_prefix`` all keys begin with it, so that a user of Redis may be held to them; its hash tag counts."""
    server = request.getfixturevalue("redis_server" if kind == "ext:redis" else "redis_cluster")
    servers = [server] if kind == "ext:redis" else server.servers
    allow("shop", f"{prefix}*", *servers)
    name = "url" if kind == "ext:redis" else "urls"
    login = {"username": "shop", "password": PASSWORD}
    options = {"type": kind, name: server.url, "key_prefix": prefix, **login}
    store, other = opened(**options), opened(**{**options, "key_prefix": "other:"})
    made = store.swap(session_id, None, raw()).made
    with store.lock(session_id, PATIENCE), servers[0].client() as client:
        found = store.read(session_id)
        keys = [key for server in servers for key in _keys(server, session_id)]
        slots = {client.execute_command("CLUSTER KEYSLOT", key) for key in keys} if kind != "ext:redis" else set()
    with pytest.raises(SessionStoreError):
        other.read(session_id)

    assert made
    assert found is not None
    assert sorted(keys) == sorted([f"{prefix}{session_id}:session", f"{prefix}lock:{session_id}"])
    assert len(slots) <= 1 or prefix == "shop:"

    store.close()
    other.close()


def _keys(server, session_id):
    with server.client() as client:
        return [key.decode() for key in client.keys(f"*{session_id}*")]


def test_the_default_prefix_is_beakers(redis_server, session_id, raw):
    """Without ``key_prefix`` a session stands where Beaker's stands, and its lock where ours always was."""
    store = opened(type="ext:redis", url=redis_server.url, key_prefix="beaker_cache:")
    store.swap(session_id, None, raw())
    with store.lock(session_id, PATIENCE):
        keys = _keys(redis_server, session_id)

    assert sorted(keys) == [f"beaker_bridge_lock:{session_id}", key_of(session_id)]

    store.close()


@pytest.mark.parametrize(
    ("address", "login"),
    [
        ("redis://127.0.0.1:{port}", {"username": "me", "password": PASSWORD}),
        ("redis://me@127.0.0.1:{port}/0", {"password": PASSWORD}),
        ("redis://:{quoted}@127.0.0.1:{port}", {"username": "me"}),
        ("redis://me:{quoted}@127.0.0.1:{port}", {"username": "me", "password": PASSWORD}),
        ("redis://me:{quoted}@127.0.0.1:{port}", {"username": "other", "password": "other"}),
        ("unix://{socket}?db=0", {"username": "me", "password": PASSWORD}),
    ],
)
def test_the_login_of_the_options(address, login, start_server, allow, tmp_path_factory, session_id, raw):
    """``username`` and ``password`` open a Redis as they are written, where the address has none of its own."""
    path = tmp_path_factory.mktemp("socket") / "redis.sock"
    server = start_server("redis", "Redis", "--unixsocket", str(path))
    allow("me", "*", server)
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "default", "off")
        url = address.format(port=server.port, quoted=quote(PASSWORD, safe=""), socket=path)
        store = opened(type="ext:redis", url=url, **login)
        made = store.swap(session_id, None, raw()).made
        store.close()
        client.execute_command("ACL", "SETUSER", "default", "on")

    assert made


@pytest.mark.parametrize(
    ("address", "login", "ignored"),
    [
        ("redis://me:secret@h", {"username": "me", "password": "secret"}, []),
        ("redis://me:secret@h", {"username": "you", "password": "other"}, ["username", "password"]),
        ("redis://:sec%2Fret@h", {"username": "you", "password": "sec%2Fret"}, ["password"]),
        ("redis+sentinel://me:secret@h:1/s", {"username": "me", "password": "other"}, ["password"]),
        ("redis+sentinel://me:sec%2Fret@h:1/s", {"username": "me", "password": "sec/ret"}, []),
        ("unix://me:secret@/p", {"password": "other"}, ["password"]),
    ],
)
def test_an_address_wins_over_the_login_of_the_options(address, login, ignored, caplog):
    """A name or a password in the address counts; another one in the options is a warning, which shows none."""
    settings = {"session.type": "ext:redis", "session.url": address}
    settings |= {f"session.{name}": value for name, value in login.items()}
    store = open_store(read_options(prefixed(settings)))
    arguments = store._connected().connection_pool.connection_kwargs

    assert [record.getMessage() for record in caplog.records] == [
        f"session.{name} is ignored: session.url holds another one" for name in ignored
    ]
    for name in set(login) - set(ignored):
        assert arguments[name] == login[name]
    assert all(arguments[name] != login[name] for name in ignored)


def test_the_login_of_sentinels(caplog):
    """A login of the options is the master's, as one in the sentinels' address is."""
    url = "redis+sentinel://one:26379/main"
    store = opened(type="ext:redis", url=url, username="me", password=PASSWORD)
    arguments = store._connected().connection_pool.connection_kwargs

    assert (arguments["username"], arguments["password"]) == ("me", PASSWORD)


def test_a_client_has_a_login_of_its_own(caplog):
    """Beside a client, a login of the options is a warning."""
    opened(type="ext:redis", url=redis.Redis(), password="p")

    assert [record.getMessage() for record in caplog.records] == [
        "password is ignored: url is a client, which has its own"
    ]


def test_the_address_of_sentinels_says_who_and_where(tmp_path):
    """User, password and database of a sentinels' address are the master's."""
    store = opened(type="ext:redis", url="redis+sentinel://me:p%40ss@one:26379,two:26380/main/3", store_timeout=4)
    client = store._connected()
    pool = client.connection_pool
    arguments = pool.connection_kwargs

    assert (arguments["username"], arguments["password"], arguments["db"]) == ("me", "p@ss", 3)
    assert (arguments["socket_timeout"], arguments["socket_connect_timeout"]) == (4, 4)
    assert pool.service_name == "main"

    sentinels = pool.sentinel_manager.sentinels
    places = [sentinel.connection_pool.connection_kwargs for sentinel in sentinels]

    assert [(place["host"], place["port"], place["socket_timeout"]) for place in places] == [
        ("one", 26379, 2),
        ("two", 26380, 2),
    ]

    store.close()


# -- What Redis must grant -----------------------------------------------------------------------------


GRANT = re.compile(r"^ *ACL SETUSER (sessions|cluster) on >a-password (.+)$", re.MULTILINE)
RELIABILITY = (Path(__file__).parents[2] / "docs/explanation/reliability.rst").read_text(encoding="utf-8")
#: What the documentation grants: to whom, and the keys and commands.
GRANTS = [(user, rights.split()) for user, rights in GRANT.findall(RELIABILITY)]


@pytest.fixture
def granted(request):
    """Return what makes a store, on a server or a cluster, whose user has some rights and no others."""
    stores = []

    def granted(user, rights, *, where="redis_server", **options):
        servers = [request.getfixturevalue(where)] if user == "sessions" else []
        servers = servers or request.getfixturevalue("redis_cluster").servers
        for server in servers:
            with server.client() as client:
                client.execute_command("ACL", "SETUSER", user, "reset", "on", ">a-password", *rights)
        address = f"redis://{user}:a-password@127.0.0.1:{servers[0].port}"
        kind, name = ("ext:redis", "url") if user == "sessions" else ("ext:rediscluster", "urls")
        stores.append(opened(**{"type": kind, name: address, **options}))
        return stores[-1]

    yield granted
    for store in stores:
        store.close()


def use(store, session_id):
    """Do all that a session, or a region, does with a store; a write that loses among it."""
    assert store.read(session_id) is None

    record = store.swap(session_id, None, b"one", 100).found

    assert store.swap(session_id, record, b"two").made
    assert store.swap(session_id, record, b"three").found.raw == b"two"

    for _ in range(2):
        with store.lock(session_id, 0.01):
            pass

    assert store.swap(session_id, store.read(session_id), None).made
    assert store.read(session_id) is None


def test_the_documentation_grants():
    """There is one line with scripts, and one without, for a Redis, and for a Cluster."""
    assert [(user, "+eval" in rights, "+watch" in rights) for user, rights in GRANTS] == [
        ("sessions", True, False),
        ("sessions", False, True),
        ("cluster", True, False),
        ("cluster", False, True),
    ]


@pytest.mark.parametrize(("user", "rights"), GRANTS)
def test_the_rights_of_the_documentation_are_enough(granted, user, rights, session_id):
    """A user who has what the documentation grants can do all that sessions do, with scripts and without."""
    use(granted(user, rights), session_id)


@pytest.mark.parametrize(("user", "rights"), GRANTS[:2])
def test_the_rights_on_valkey(granted, user, rights, session_id):
    """Valkey needs no other rights, and its errors name those that are missing, too."""
    use(granted(user, rights, where="valkey_server"), session_id)
    for missing in ("+set", "+watch" if "+watch" in rights else "+evalsha", "~beaker_cache:*"):
        store = granted(user, [right for right in rights if right != missing], where="valkey_server")
        with pytest.raises(SessionStoreError, match=r"refuses .*; a user of it needs the rights"):
            store.swap(session_id, None, b"one")


@pytest.mark.parametrize(("user", "rights"), GRANTS[:2])
def test_the_rights_in_another_database(granted, redis_server, user, rights, session_id):
    """A database that is not the first one takes the right to select it."""
    granted(user, [*rights, "+select"])
    store = opened(type="ext:redis", url=f"redis://{user}:a-password@127.0.0.1:{redis_server.port}/1")
    use(store, session_id)
    store.close()
    granted(user, rights)
    with pytest.raises(SessionStoreError, match="'select' command"):
        store.read(session_id)

    store.close()


@pytest.mark.parametrize(("user", "rights"), GRANTS[:2])
def test_the_rights_behind_sentinels(redis_sentinels, user, rights, session_id):
    """Behind sentinels the user of the master needs no other right."""
    with redis_sentinels.master.client() as client:
        client.execute_command("ACL", "SETUSER", user, "reset", "on", ">a-password", *rights)
    store = opened(type="ext:redis", url=redis_sentinels.url, username=user, password="a-password")
    use(store, session_id)
    store.close()


@pytest.mark.parametrize(("user", "rights"), GRANTS)
def test_the_rights_of_the_documentation_under_a_prefix(granted, user, rights, session_id):
    """With a ``key_prefix`` one pattern of keys is enough."""
    commands = [right for right in rights if not right.startswith("~")]
    use(granted(user, ["~shop:*", *commands], key_prefix="shop:"), session_id)


@pytest.mark.parametrize(
    ("user", "rights", "missing"), [(*grant, right) for grant in GRANTS for right in grant[1] if right != "+eval"]
)
def test_a_right_that_is_missing_is_named(granted, user, rights, missing, session_id, caplog):
    """Without one of them an error says which command is refused, or what is needed; never that Redis is away."""
    store = granted(user, [right for right in rights if right != missing])
    with pytest.raises((SessionStoreError, SessionConflictError)) as refused:
        use(store, session_id)
    # A lock that cannot be released does not fail a request, but keeps the next one waiting.
    told = caplog.records[0].getMessage() if caplog.records else str(refused.value)
    command = missing.lstrip("+~").replace("|", " ").upper()

    assert told.startswith(f"the session store {store.kind} refuses ")
    assert (command if missing.startswith("+") else missing.lstrip("~")) in told
    assert "cannot be reached" not in told
    assert session_id not in told


@pytest.mark.parametrize("command", ["EVALSHA", "GET", "WATCH"])
def test_a_command_that_a_server_does_not_have(start_server, session_id, raw, command):
    """A command that was renamed is refused; without scripts a transaction does it. The error quotes no id."""
    renamed = ["--rename-command", command, ""]
    server = start_server("redis", "Redis", *renamed, "--rename-command", "EVAL", "")
    store = opened(type="ext:redis", url=server.url)
    if command == "EVALSHA":
        assert store.swap(session_id, None, raw()).made
        assert not store.swap(session_id, None, raw()).made
    else:
        with pytest.raises(SessionStoreError, match=f"refuses .*{command}.*: unknown command .*; a user") as refused:
            store.read(session_id) if command == "GET" else store.swap(session_id, None, raw())

        assert session_id not in "".join(traceback.format_exception(refused.value))

    store.close()


def test_scripts_are_tried_again_when_the_server_was_away(start_server, session_id, raw, monkeypatch):
    """Once a server was away it may have other rights: the next write tries a script again, and then remembers."""
    monkeypatch.setattr(_breaker, "PAUSE", 0)
    server = start_server("redis", "Redis")
    store = opened(type="ext:redis", url=server.url)
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "default", "-@scripting")
    record = store.swap(session_id, None, raw()).found
    record = store.swap(session_id, record, raw()).found
    with server.client() as client:
        refused = [entry["object"] for entry in client.acl_log()]
    server.kill()
    with pytest.raises(SessionStoreError):
        store.read(session_id)
    server.start()
    for _ in range(2):
        record = store.swap(session_id, store.read(session_id), raw()).found
    with server.client() as client:
        calls = client.info("commandstats")

    assert refused == ["evalsha"]
    assert calls["cmdstat_evalsha"]["calls"] == 2
    assert "cmdstat_watch" not in calls

    store.close()


def test_sessions_that_cannot_be_listed_are_an_unreachable_store(start_server):
    """A listing that the server refuses, or that finds it away, is an error that says so."""
    server = start_server("redis", "Redis")
    store = opened(type="ext:redis", url=server.url)
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "default", "-scan")
    with pytest.raises(SessionStoreError, match="the session store ext:redis refuses SCAN"):
        next(store.ids())
    server.kill()
    for use in (store.count, lambda: next(store.ids()), lambda: next(store.scan())):
        with pytest.raises(SessionStoreError, match="cannot be reached"):
            use()

    store.close()


def test_other_rights_are_noticed(start_server, session_id, raw):
    """Where a user loses the right to a transaction, and gets that to scripts, one request fails at most."""
    server = start_server("redis", "Redis")
    store = opened(type="ext:redis", url=server.url)
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "default", "-@scripting")
        record = store.swap(session_id, None, raw()).found
        client.execute_command("ACL", "SETUSER", "default", "+@scripting", "-watch")
        with pytest.raises(SessionStoreError, match="'watch' command"):
            store.swap(session_id, record, raw())

    assert store.swap(session_id, record, raw()).made

    store.close()


def test_a_write_between_look_and_transaction_wins(granted, monkeypatch, session_id, raw):
    """What somebody writes after the look, and before the transaction, is found, and not overwritten."""
    user, rights = GRANTS[1]
    store, other = granted(user, rights), granted(user, rights)
    record = store.swap(session_id, None, raw()).found
    theirs, answers = raw(), _redis_swap._answers

    def answers_late(connection, *commands):
        if commands[0] == ("MULTI",):
            monkeypatch.undo()
            assert other.swap(session_id, record, theirs).made
        return answers(connection, *commands)

    monkeypatch.setattr(_redis_swap, "_answers", answers_late)
    swap = store.swap(session_id, record, raw())

    assert not swap.made
    assert swap.found.raw == theirs


@pytest.mark.parametrize(("user", "rights"), GRANTS)
def test_what_fails_within_a_transaction_is_an_error(granted, user, rights, session_id, raw):
    """An expiry that Redis does not take fails the write, as in a script; what stood there stays."""
    store = granted(user, rights)
    record = store.swap(session_id, None, raw()).found
    with pytest.raises(SessionStoreError, match=r"refuses .*(not an integer|invalid expire)"):
        store.swap(session_id, record, raw(), 1e20)

    assert store.read(session_id) == record


@pytest.mark.parametrize(("user", "rights"), GRANTS[:2])
def test_a_logout_where_memory_is_over(start_server, user, rights, session_id, raw):
    """A Redis over its maxmemory refuses writes; sessions and locks are deleted, with scripts and without."""
    server = start_server("redis", "Redis")
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", user, "reset", "on", ">a-password", *rights)
        store = opened(type="ext:redis", url=server.url, username=user, password="a-password")
        record = store.swap(session_id, None, raw()).found
        with store.lock(session_id, PATIENCE):
            client.config_set("maxmemory", 1)
        with pytest.raises(SessionStoreError, match=r"ext:redis refuses .*maxmemory"):
            store.swap(session_id, record, raw())
        stale = store.swap(session_id, Record(raw()), None)
        deleted = store.swap(session_id, record, None)

        assert not stale.made
        assert deleted.made
        assert store.swap(session_id, record, None).made
        assert client.dbsize() == 0

    store.close()


def test_a_wrong_password_is_refused(redis_server, redis_cluster, session_id):
    """A Redis that refuses a login is not one that cannot be reached."""
    for kind, option, server in (("ext:redis", "url", redis_server), ("ext:rediscluster", "urls", redis_cluster)):
        store = opened(**{"type": kind, option: server.url, "username": "stranger", "password": "wrong"})
        with pytest.raises(SessionStoreError, match=f"the session store {kind} refuses AUTH: AuthenticationError: "):
            store.read(session_id)

        store.close()


@pytest.mark.parametrize("passing", [0, 3])
def test_the_answer_of_a_transaction_that_was_lost(redis_server, granted, session_id, raw, passing):
    """A transaction whose answer was lost is an error once; tried again it is made, and stands once."""
    granted(*GRANTS[1])
    with Proxy(redis_server.port) as proxy:
        url = f"redis://sessions:a-password@127.0.0.1:{proxy.port}"
        store = opened(type="ext:redis", url=url, store_timeout=PATIENCE)
        record = store.swap(session_id, None, raw()).found
        new, answers = raw(), _redis_swap._answers

        def answers_lost(connection, *commands):
            if commands[0] == ("MULTI",):
                proxy.lose_next_answer(passing)
            return answers(connection, *commands)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(_redis_swap, "_answers", answers_lost)
            with pytest.raises(SessionStoreError, match="cannot be reached"):
                store.swap(session_id, record, new)

        assert store.read(session_id).raw == new
        assert store.swap(session_id, record, new).made

        store.close()


def test_a_slot_that_has_moved_is_followed_without_scripts(redis_cluster, granted, raw):
    """A client that knows the old node of a session's slot finds the new one."""
    user, rights = next(grant for grant in GRANTS if grant[0] == "cluster" and "+watch" in grant[1])
    store = granted(user, rights)
    first, second = secrets.token_hex(16), secrets.token_hex(16)
    store.swap(first, None, raw())
    nodes = store._client.nodes_manager
    slot = store._client.keyslot(key_of(first))
    right = nodes.slots_cache[slot]
    wrong = next(found for found in nodes.slots_cache.values() if found[0].name != right[0].name)
    nodes.slots_cache[slot] = wrong
    # It is known of that node, too, that it runs no scripts.
    while nodes.slots_cache[store._client.keyslot(key_of(second))][0].name != wrong[0].name:
        second = secrets.token_hex(16)
    store.swap(second, None, raw())

    assert store.swap(first, store.read(second), raw()).found is not None
    assert nodes.slots_cache[slot][0].name == right[0].name


def test_a_client_of_the_applications_without_scripts(granted, redis_server, session_id):
    """A client that the application has is used, whatever it decodes; its connections are left open."""
    granted(*GRANTS[1])
    url = f"redis://sessions:a-password@127.0.0.1:{redis_server.port}"
    with redis.Redis.from_url(url, decode_responses=True) as client:
        use(opened(type="ext:redis", url=client), session_id)


# -- What is wrong at the start ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"type": "ext:redis", "url": "http://me:a-password@localhost"},
        {"type": "ext:redis", "url": "redis+sentinel://me:a-password@no-port/main"},
        {"type": "ext:rediscluster", "urls": "redis://localhost:7000,me:a-password@localhost"},
    ],
)
def test_an_address_that_is_none_stops_the_start(options):
    """An address that is not a Redis's is a SettingsError that names the option, and no password."""
    with pytest.raises(SettingsError, match="must be the address of a Redis") as refused:
        opened(**options)

    assert refused.value.name in options
    assert "a-password" not in str(refused.value)


FORM = "that of sentinels has the form redis+sentinel://name:password@host:port,host:port/service/database"
UNREADABLE = "it cannot be read (in a name or password, / ? # @ and : are written as %2F %3F %23 %40 and %3A)"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("redis://h?timeout=1", "redis-py has no such option: number 1 after the ?"),
        ("rediss://h?db=1&ssl=true", "redis-py has no such option: number 2 after the ?"),
        ("unix:///p?x&db=1&foo=1", "redis-py has no such option: number 3 after the ?"),
        ("rediss://h?ssl_cert_reqs=none;password=x", "Invalid SSL Certificate Requirements Flag"),
        ("redis://h?socket_timeout=soon", "Invalid value for 'socket_timeout' in connection URL."),
        ("redis://h?db=x", "Invalid value for 'db' in connection URL."),
        ("redis://h/-1", "a database's number is 0 or more"),
        ("redis://h:99999", "Port out of range 0-65535"),
        ("redis://h:x", UNREADABLE),
        ("redis://:geh/eim@h", UNREADABLE),
        ("redis://:geh#eim@h", UNREADABLE),
        ("redis://:1?geheim=1@h", UNREADABLE),
        ("redis://[::1", UNREADABLE),
        ("redis://h?encoding=none", UNREADABLE),
        ("unix://", "a socket has a path, as in unix:///run/redis.sock"),
        ("redis+sentinel://h:1", FORM),
        ("redis+sentinel://h:99999/s", FORM),
        ("redis+sentinel://h:1/s?db=1", FORM),
        ([1], "a client of redis-py's would do, and this is a list"),
        (True, "a client of redis-py's would do, and this is a bool"),
    ],
)
def test_what_would_fail_at_the_first_request_stops_the_start(address, reason):
    """A client is built at the start, unconnected: what it does not take is told then, and no part of a password."""
    with pytest.raises(SettingsError) as refused:
        open_store(read_options(prefixed({"beaker.session.type": "ext:redis", "beaker.session.url": address})))

    assert str(refused.value) == f"beaker.session.url must be the address of a Redis: {reason}"
    assert refused.value.__cause__ is refused.value.__context__ is None


@pytest.mark.parametrize("address", ["redis://h:1/notadb", "rediss://h/not/a/db", "redis://h/1a?socket_timeout=1"])
def test_a_database_that_is_no_number_is_told(address, caplog):
    """redis-py takes database 0 where the address names none by its number: that goes on, with a warning."""
    store = open_store(read_options(prefixed({"session.type": "ext:redis", "session.url": address})))

    assert not store._connected().connection_pool.connection_kwargs.get("db")
    assert [record.getMessage() for record in caplog.records] == [
        "session.url: the database behind the host is no number, so that is 0; write session.url = …/0"
    ]


@pytest.mark.parametrize("address", ["redis://h/0", "redis://h", "redis://h/", "redis://h/x?db=1", "unix:///a/b"])
def test_an_address_without_a_fault_is_told_of_nothing(address, caplog):
    """A database's number, its absence and the path of a socket are no warning."""
    opened(type="ext:redis", url=address)

    assert caplog.records == []


def test_the_addresses_of_a_cluster(caplog):
    """Of a cluster's addresses redis-py passes over an unknown option, as Beaker did; a database there is none."""
    opened(type="ext:rediscluster", urls="redis://a?timeout=1, redis://b/0")
    with pytest.raises(SettingsError, match="urls must be the address of a Redis: a cluster has database 0 alone"):
        opened(type="ext:rediscluster", urls="redis://a,redis://b/1")
    with pytest.raises(SettingsError, match="urls must be the address of a Redis: it cannot be read"):
        opened(type="ext:rediscluster", urls="redis://a?connection_class=x")

    assert [record.getMessage() for record in caplog.records] == [
        "urls: redis-py has no such option: number 1 after the ?; it is ignored"
    ]


def test_a_missing_client_stops_the_start(monkeypatch):
    """Without redis-py, ``type = ext:redis`` is a SettingsError that says what is missing."""
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.delitem(sys.modules, "beaker_bridge.stores.redis")
    with pytest.raises(SettingsError, match=r"type = ext:redis needs a package .* redis") as refused:
        opened(type="ext:redis", url="redis://localhost")

    assert refused.value.name == "type"


# -- How a command is sent ------------------------------------------------------------------------------


@pytest.fixture
def traced(monkeypatch):
    """Trace redis-py's clients, as tools that watch an application do; return the commands' names."""
    seen = []
    execute = redis.Redis.execute_command

    def trace(client, *command, **options):
        seen.append(command[0])
        return execute(client, *command, **options)

    monkeypatch.setattr(redis.Redis, "execute_command", trace)
    return seen


def test_a_tracer_sees_each_command(redis_server, traced):
    """Tools that watch an application's commands on redis-py's clients see ours, too."""
    store, session_id = opened(type="ext:redis", url=redis_server.url), secrets.token_hex(16)
    record = store.swap(session_id, store.read(session_id), b"x").found
    with store.lock(session_id, PATIENCE):
        store.swap(session_id, record, None)

    assert [name for name in traced if name != "EVAL"] == ["GET", *["EVALSHA"] * 4]

    store.close()


def test_the_applications_client_does_it_itself(redis_server, request):
    """A client that is given executes the commands, with its own retries."""
    with redis_server.client() as client:
        store = opened(type="ext:redis", url=client)
        traced = request.getfixturevalue("traced")
        store.read(ID)

        assert traced == ["GET"]


# -- A server that fails -------------------------------------------------------------------------------


@pytest.fixture
def private_redis(start_server):
    """Return a Redis of the test's own, which it may kill."""
    return start_server("redis", "Redis", "--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture
def deaf():
    """Return the port of a socket that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def uses(store):
    """Yield each use of a store, as a function."""
    session_id = secrets.token_hex(16)
    yield lambda: store.read(session_id)
    yield lambda: store.swap(session_id, None, store.envelope.wrap(text()))
    yield lambda: store.swap(session_id, None, None)
    yield lambda: store.lock(session_id, 0.01).__enter__()


@pytest.mark.parametrize("how", ["redis://127.0.0.1:{}", "redis+sentinel://127.0.0.1:{}/main"])
@pytest.mark.parametrize("server", ["absent", "deaf"])
def test_an_unreachable_redis_is_an_error(request, how, server):
    """A Redis that refuses, or never answers, is a SessionStoreError with its cause, never 'nothing'."""
    port = free_port() if server == "absent" else request.getfixturevalue("deaf")
    store = opened(type="ext:redis", url=how.format(port), store_timeout=0.05)
    for use in uses(store):
        with pytest.raises(SessionStoreError) as failed:
            use()

        assert failed.value.name == "ext:redis"
        assert isinstance(failed.value.original, redis.RedisError)

    store.close()


@pytest.mark.parametrize("server", ["absent", "deaf"])
def test_an_unreachable_cluster_is_an_error(request, server):
    """A Redis Cluster of which no node answers is a SessionStoreError."""
    port = free_port() if server == "absent" else request.getfixturevalue("deaf")
    store = opened(type="ext:rediscluster", urls=f"redis://127.0.0.1:{port}", store_timeout=0.05)
    for use in uses(store):
        with pytest.raises(SessionStoreError) as failed:
            use()

        assert failed.value.name == "ext:rediscluster"

    store.close()


def test_a_server_that_fails_is_asked_once():
    """A connection that the server drops is not tried again and again: the request would wait for it."""
    connections, done = [], threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        store = opened(type="ext:redis", url=f"redis://127.0.0.1:{listener.getsockname()[1]}", store_timeout=PATIENCE)

        def drop():
            listener.settimeout(0.05)
            while not done.is_set():
                with suppress(TimeoutError):
                    connection, _address = listener.accept()
                    connections.append(connection)
                    connection.close()

        def read():
            try:
                with pytest.raises(SessionStoreError):
                    store.read(secrets.token_hex(16))
            finally:
                done.set()

        together(drop, read)

    assert len(connections) == 1


def test_the_timeout_bounds_connecting_and_each_operation(redis_server, redis_cluster):
    """``store_timeout`` is the clients' timeout; a cluster's, which asks a second node, has half of it."""
    store = opened(type="ext:redis", url=redis_server.url, store_timeout=4)
    cluster = opened(type="ext:rediscluster", urls=redis_cluster.url, store_timeout=4)
    arguments = [store._connected().connection_pool.connection_kwargs, cluster._connected().get_connection_kwargs()]

    assert [(one["socket_timeout"], one["socket_connect_timeout"]) for one in arguments] == [(4, 4), (2, 2)]

    store.close()
    cluster.close()


def test_a_redis_that_comes_back_is_used_again(private_redis, session_id, raw, monkeypatch):
    """Requests fail as long as Redis is gone, and find the record when it is back, without a restart."""
    monkeypatch.setattr(_breaker, "PAUSE", 0)
    store = opened(type="ext:redis", url=private_redis.url)
    new = raw()
    record = store.swap(session_id, None, new).found
    private_redis.kill()
    with pytest.raises(SessionStoreError):
        store.read(session_id)
    with pytest.raises(SessionStoreError):
        store.swap(session_id, record, raw())
    private_redis.start()

    assert store.read(session_id).raw == new

    store.close()


def test_a_redis_that_hangs_is_an_error(private_redis, session_id, raw):
    """A Redis that hangs in the middle of its work is a SessionStoreError, and is used again afterwards."""
    patient = opened(type="ext:redis", url=private_redis.url, store_timeout=PATIENCE)
    record = patient.swap(session_id, None, raw()).found
    hasty = opened(type="ext:redis", url=private_redis.url, store_timeout=0.05)
    private_redis.freeze()
    # The server may do what it was asked for when it wakes: an insert, which loses.
    for use in (lambda: hasty.read(session_id), lambda: hasty.swap(session_id, None, raw())):
        with pytest.raises(SessionStoreError) as failed:
            use()

        assert isinstance(failed.value.original, redis.TimeoutError)

    private_redis.thaw()

    assert patient.read(session_id) == record

    for store in (patient, hasty):
        store.close()


@pytest.mark.parametrize("passing", [0, 3])
def test_an_answer_that_was_lost_after_the_write(redis_server, session_id, raw, passing):
    """A swap whose answer was lost, or cut, is an error once; tried again it is made, and stands once."""
    with Proxy(redis_server.port) as proxy:
        store = opened(type="ext:redis", url=f"redis://127.0.0.1:{proxy.port}", store_timeout=PATIENCE)
        record = store.swap(session_id, None, raw()).found
        new = raw()
        proxy.lose_next_answer(passing)
        with pytest.raises(SessionStoreError):
            store.swap(session_id, record, new)

        assert store.read(session_id).raw == new
        assert store.swap(session_id, record, new).made

        store.close()


def test_a_lock_whose_release_fails_has_served(private_redis, session_id, caplog):
    """A Redis that goes while a lock is held fails neither the block nor its end: the lock falls by itself."""
    store = opened(type="ext:redis", url=private_redis.url)
    done = []
    with caplog.at_level(logging.WARNING), store.lock(session_id, PATIENCE):
        private_redis.kill()
        done.append(True)

    assert done
    assert "the lock that it holds for a session is released later" in caplog.text

    store.close()


@pytest.fixture
def session_id():
    """Return a new id."""
    return secrets.token_hex(16)


@pytest.fixture
def raw():
    """Return what makes a new record's raw bytes."""
    return lambda: pickle.dumps(text().decode("ascii"))
