import asyncio
import base64
import json
import ssl
import time
from contextlib import contextmanager

import nkeys
import pytest
import trustme
from nacl.signing import SigningKey

from caterva2.bus.access import Access, read_credentials
from caterva2.bus.buckets import BUCKETS, ROOTS, Bucket
from caterva2.bus.connection import BusAddress, close, connect
from caterva2.bus.permissions import permissions_of, server_block
from caterva2.errors import BusError, ConfigError
from caterva2.testing.nats_cluster import TlsFiles, nats_cluster

SECRET = "not-to-be-shown"
ONE_USER = f"authorization {{ users: [ {{ user: someone, password: {SECRET} }} ] }}"


def issue(directory, authority, name):
    issued = authority.issue_cert(name)
    files = TlsFiles(directory / f"{name}.pem", directory / f"{name}.key", directory / "ca.pem")
    issued.cert_chain_pems[0].write_to_path(files.certificate)
    issued.private_key_pem.write_to_path(files.key)
    authority.cert_pem.write_to_path(files.ca)
    return files


@pytest.fixture
def authority():
    return trustme.CA()


@pytest.fixture
def tls(tmp_path, authority):
    return issue(tmp_path, authority, "127.0.0.1")


@pytest.fixture
def credentials(tmp_path):
    def write(text):
        path = tmp_path / "credentials"
        path.write_text(text + "\n")
        return path

    return write


@contextmanager
def server(directory, configuration, **options):
    with nats_cluster(directory / "nats", size=1, configuration=configuration, **options) as cluster:
        yield cluster.urls[0], cluster.nodes[0]


async def use(address):
    client = await connect(address)
    try:
        assert await Bucket(client, ROOTS).put("foo", b"value")
        return client.connected_url
    finally:
        await close(client)


async def test_user_and_password_over_tls(tmp_path, tls, credentials):
    access = Access(credentials(f"someone:{SECRET}"), tls.ca)
    with server(tmp_path, ONE_USER, tls=tls) as (url, _):
        await use(BusAddress((url,), access=access))


@pytest.mark.parametrize(
    ("credentials_of", "ca_of", "said"),
    [
        ("someone:wrong", True, "refuses the credentials in .*credentials"),
        ("just-a-token", True, "refuses the credentials"),
        (None, True, "wants credentials: set bus_credentials"),
        (f"someone:{SECRET}", False, "certificate is not trusted.*set bus_ca"),
    ],
)
async def test_what_is_missing_or_wrong_is_said(tmp_path, tls, credentials, credentials_of, ca_of, said):
    access = Access(credentials_of and credentials(credentials_of), tls.ca if ca_of else None)
    with server(tmp_path, ONE_USER, tls=tls) as (url, _), pytest.raises(BusError, match=said) as caught:
        await connect(BusAddress((url,), access=access))
    assert SECRET not in str(caught.value)


async def test_certificate_of_another_host_is_refused(tmp_path, authority, credentials):
    files = issue(tmp_path, authority, "n1.example.org")
    access = Access(credentials(f"someone:{SECRET}"), files.ca)
    with server(tmp_path, ONE_USER, tls=files) as (url, _), pytest.raises(BusError, match="not trusted"):
        await connect(BusAddress((url,), access=access))


async def test_server_may_want_a_certificate(tmp_path, authority, tls):
    mine = issue(tmp_path, authority, "service.example.org")
    with server(tmp_path, tls.block(verify=True)) as (plain, _):
        url = plain.replace("nats://", "tls://")
        await use(BusAddress((url,), access=Access(None, tls.ca, mine.certificate, mine.key)))
        with pytest.raises(BusError, match="bus_certificate"):
            await connect(BusAddress((url,), access=Access(None, tls.ca)))


@pytest.mark.parametrize("ca", [True, False])
async def test_nothing_is_shown_to_a_server_without_tls(tls, credentials, ca):
    """Whoever is on the way can leave TLS out of what the server says of itself."""
    heard = []

    async def pretend(reader, writer):
        info = {"server_id": "x", "version": "2.15.1", "auth_required": True, "max_payload": 1 << 20}
        writer.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
        heard.append(await reader.read(10_000))
        writer.close()

    listening = await asyncio.start_server(pretend, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        access = Access(credentials(f"someone:{SECRET}"), tls.ca if ca else None)
        url = f"{'nats' if ca else 'tls'}://127.0.0.1:{port}"
        with pytest.raises(BusError, match="does not speak TLS"):
            await connect(BusAddress((url,), access=access))
        async with asyncio.timeout(10):
            while not heard:
                await asyncio.sleep(0.01)
    assert heard == [b""]


async def test_seed_of_an_nkey(tmp_path, credentials):
    seed, public = make_nkey(nkeys.PREFIX_BYTE_USER)
    with server(tmp_path, f"authorization {{ users: [ {{ nkey: {public} }} ] }}") as (url, _):
        await use(BusAddress((url,), access=Access(credentials(seed))))
        other, _ = make_nkey(nkeys.PREFIX_BYTE_USER)
        with pytest.raises(BusError, match="refuses the credentials"):
            await connect(BusAddress((url,), access=Access(credentials(other))))


async def test_creds_file(tmp_path, credentials):
    configuration, creds = operator_mode()
    with server(tmp_path, configuration) as (url, _):
        await use(BusAddress((url,), access=Access(credentials(creds))))


def make_nkey(prefix):
    """Return the seed and the public key of a new nkey."""
    raw = bytes(SigningKey.generate())
    seed = nkeys.encode_seed(raw, prefix)
    return seed.decode(), nkeys.from_seed(bytearray(seed)).public_key.decode()


def sign(claims, issuer_seed):
    """Return a JWT as NATS has them (ADR-14)."""
    key = nkeys.from_seed(bytearray(issuer_seed.encode()))
    claims = {"iss": key.public_key.decode(), "iat": int(time.time()), "jti": "x", **claims}
    parts = [{"typ": "JWT", "alg": "ed25519-nkey"}, claims]
    signed = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    return (signed + b"." + base64.urlsafe_b64encode(key.sign(signed)).rstrip(b"=")).decode()


def operator_mode():
    """Return the configuration of a server whose users are signed for, and the credentials of one."""
    operator_seed, operator = make_nkey(nkeys.PREFIX_BYTE_OPERATOR)
    account_seed, account = make_nkey(nkeys.PREFIX_BYTE_ACCOUNT)
    _, system = make_nkey(nkeys.PREFIX_BYTE_ACCOUNT)
    user_seed, user = make_nkey(nkeys.PREFIX_BYTE_USER)
    limits = {name: -1 for name in ("subs", "data", "payload", "imports", "exports", "conn", "leaf")}
    stored = {name: -1 for name in ("mem_storage", "disk_storage", "streams", "consumer")}

    def claims(subject, kind, **more):
        return {"sub": subject, "name": kind, "nats": {"type": kind, "version": 2, **more}}

    signed = {
        "operator": sign(claims(operator, "operator"), operator_seed),
        account: sign(
            claims(account, "account", limits={**limits, "wildcards": True, **stored}), operator_seed
        ),
        system: sign(claims(system, "account", limits={**limits, "wildcards": True}), operator_seed),
    }
    jwt = sign(claims(user, "user", subs=-1, data=-1, payload=-1), account_seed)
    configuration = f"""
        operator: {signed["operator"]}
        system_account: {system}
        resolver: MEMORY
        resolver_preload: {{ {account}: {signed[account]}, {system}: {signed[system]} }}
    """
    creds = ["-----BEGIN NATS USER JWT-----", jwt, "------END NATS USER JWT------", ""]
    creds += ["-----BEGIN USER NKEY SEED-----", user_seed, "------END USER NKEY SEED------"]
    return configuration, "\n".join(creds)


@pytest.mark.parametrize("text", ["", "two words", "one\nline\ntoo many"])
def test_what_is_no_credentials(credentials, text):
    with pytest.raises(ConfigError, match="neither"):
        read_credentials(credentials(text))


def test_files_that_cannot_be_read_are_named(tmp_path):
    absent = tmp_path / "absent"
    with pytest.raises(ConfigError, match="absent"):
        Access(absent).options("nats://a")
    with pytest.raises(ConfigError, match=r"bus_ca .*absent"):
        Access(None, absent).options("tls://a")
    (tmp_path / "junk").write_text("junk")
    with pytest.raises(ConfigError, match=r"bus_certificate .*junk"):
        Access(None, None, tmp_path / "junk").options("tls://a")


def test_servers_are_verified_by_default():
    context = Access().options("tls://a")["tls"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert Access().options("nats://a") == {}


async def test_who_may_not_make_the_buckets_uses_those_that_are_there(tmp_path, credentials):
    reader = server_block("reader", permissions_of("subscriber")).removesuffix("] }")
    users = f"{reader} {{ user: someone, password: {SECRET} }} ] }}"
    with server(tmp_path, users, environment={"READER_PASSWORD": "secret-of-reader"}) as (url, _):
        mine = BusAddress((url,), access=Access(credentials("reader:secret-of-reader")))
        with pytest.raises(BusError, match=r"missing.*may not make them"):
            await connect(mine)
        await use(BusAddress((url.replace("//", f"//someone:{SECRET}@"),)))
        client = await connect(mine)
        puts = [Bucket(client, bucket).put("foo", b"forged") for bucket in BUCKETS]
        refused = await asyncio.gather(*puts, return_exceptions=True)
        assert all(isinstance(error, BusError) and "permission denied" in str(error) for error in refused)
        assert client.denied == {f"$kv.{bucket.lower()}.foo" for bucket in BUCKETS}
        await close(client)
