"""Settings: defaults < file < environment < flags, each checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from caterva2.config import (
    Address,
    BrokerSettings,
    ClientSettings,
    SubscriberSettings,
    explain,
    load,
    parse_address,
    parse_size,
)
from caterva2.errors import ConfigError


@pytest.fixture
def file(tmp_path, monkeypatch):
    file = tmp_path / "config.toml"
    monkeypatch.setenv("CATERVA2_CONFIG", str(file))
    for name in ("BROKER", "TOKEN", "SUBSCRIBER_GAP_BYTES", "SUBSCRIBER_DURABILITY"):
        monkeypatch.delenv(f"CATERVA2_{name}", raising=False)
    return file


def test_flags_go_before_environment_before_file_before_defaults(file, monkeypatch):
    assert load(SubscriberSettings).gap_bytes == 16 * 1024
    file.write_text(
        'broker = "http://first:1"\n[subscriber]\ngap_bytes = "1KiB"\nbroker = "http://second:1"\n'
    )
    assert load(SubscriberSettings).gap_bytes == 1024
    assert load(SubscriberSettings).broker == "http://second:1"
    monkeypatch.setenv("CATERVA2_SUBSCRIBER_GAP_BYTES", "2048")
    assert load(SubscriberSettings).gap_bytes == 2048
    assert load(SubscriberSettings, gap_bytes="3K").gap_bytes == 3000
    monkeypatch.setenv("CATERVA2_BROKER", "http://third:1/")
    assert load(SubscriberSettings).broker == "http://third:1"


def test_a_word_that_is_none_of_the_choices_is_refused_with_where_it_stands(file):
    assert load(SubscriberSettings).durability == "process"
    file.write_text('[subscriber]\ndurability = "power"\n')
    assert load(SubscriberSettings).durability == "power"
    file.write_text('[subscriber]\ndurability = "forever"\n')
    with pytest.raises(ConfigError, match=r"config.toml.*durability.*'forever' is none of process, power"):
        load(SubscriberSettings)


@pytest.mark.parametrize(
    "text",
    [
        "not toml",
        '[subscriber]\nquota = "1GB"\n',
        "[subscriber]\ngap_bytes = -1\n",
        "[subscriber]\nupstream_requests = 0\n",
        '[subscriber]\nlisten = "8002"\n',
        '[subscriber]\nlisten = "0.0.0.0:8002"\n',
        'broker = "ftp://first"\n',
        'token = "short"\n',
        'token_file = "absent"\n',
        'brokr = "http://first:8000"\n',
        "[subscriber]\nupstream_timeout_s = []\n",
        "[subscriber]\nfollow = 1\n",
    ],
)
def test_what_is_wrong_or_unsafe_is_refused(file, text):
    file.write_text(text)
    with pytest.raises(ConfigError):
        load(SubscriberSettings)


def test_a_token_does_not_show_itself(file, tmp_path):
    (tmp_path / "token").write_text("s3cr3t-t0k3n\n")
    file.write_text('token_file = "token"\n[subscriber]\nlisten = "0.0.0.0:0"\n')
    settings = load(SubscriberSettings)
    assert settings.token == "s3cr3t-t0k3n"
    assert "s3cr3t" not in repr(settings)


def test_the_other_group_has_a_token_of_its_own(file, tmp_path, monkeypatch):
    (tmp_path / "token").write_text("s3cr3t-t0k3n\n")
    (tmp_path / "lan").write_text("0th3r-t0k3n\n")
    file.write_text('token_file = "token"\n[subscriber]\nrepublish_token_file = "lan"\n')
    settings = load(SubscriberSettings)
    assert (settings.token, settings.republish_token) == ("s3cr3t-t0k3n", "0th3r-t0k3n")
    assert "t0k3n" not in repr(settings)
    monkeypatch.setenv("CATERVA2_SUBSCRIBER_REPUBLISH_TOKEN", "fr0m-env")
    assert load(SubscriberSettings).republish_token == "fr0m-env"
    settings = load(SubscriberSettings, republish_token_file=tmp_path / "token")
    assert settings.republish_token == "s3cr3t-t0k3n"


@pytest.mark.parametrize(
    ("to", "same"),
    [
        ("http://first:8000", True),
        ("http://FIRST:8000/", True),
        ("http://first", False),
        ("https://first:8000", False),
        ("http://first:8000/other", False),
        ("http://second:8000", False),
    ],
)
def test_roots_are_not_republished_to_where_they_come_from(file, to, same):
    if same:
        with pytest.raises(ConfigError, match="use --republish alone"):
            load(SubscriberSettings, broker="http://first:8000", republish_to=to)
    else:
        assert load(SubscriberSettings, broker="http://first:8000", republish_to=to).republish_to == to
    with pytest.raises(ConfigError, match="republish-to"):
        load(SubscriberSettings, republish_to="first:8000")


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("10GB", 10**10), ("512MiB", 2**29), ("1.5T", 15 * 10**11), ("4096", 4096), (" 1 kb ", 1000)],
)
def test_sizes(text, nbytes):
    assert parse_size(text) == nbytes


@pytest.mark.parametrize("text", ["", "0", "-1", "1PB", "GB", "1 2", "1e9"])
def test_what_is_no_size(text):
    with pytest.raises(ConfigError):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "address", "url", "is_loopback"),
    [
        ("127.0.0.1:0", Address("127.0.0.1", 0), "http://127.0.0.1:0", True),
        ("[::1]:8002", Address("::1", 8002), "http://[::1]:8002", True),
        ("0.0.0.0:80", Address("0.0.0.0", 80), "http://127.0.0.1:80", False),
        ("host:65535", Address("host", 65535), "http://host:65535", False),
    ],
)
def test_addresses(text, address, url, is_loopback):
    parsed = parse_address(text)
    assert (parsed, parsed.url, parsed.is_loopback) == (address, url, is_loopback)


@pytest.mark.parametrize("text", ["8002", ":8002", "host", "host:", "host:65536", "::1:80", "a b:1"])
def test_what_is_no_address(text):
    with pytest.raises(ConfigError):
        parse_address(text)


def test_the_bus_is_shared_by_all_and_may_stand_beside_the_file(file, tmp_path, monkeypatch):
    file.write_text(
        'bus = ["tls://n1:4222", "tls://n2:4222"]\nbus_credentials = "bus.creds"\nbus_replicas = 1\n'
    )
    settings = load(SubscriberSettings)
    assert settings.bus == ("tls://n1:4222", "tls://n2:4222")
    assert settings.bus_credentials == tmp_path / "bus.creds"
    assert settings.bus_replicas == 1
    monkeypatch.setenv("CATERVA2_BUS", "nats://n3:4222,nats://user:pass@n4")
    assert load(SubscriberSettings).bus == ("nats://n3:4222", "nats://user:pass@n4")
    assert load(SubscriberSettings, bus_ca="ca.pem").bus_ca == Path("ca.pem")


@pytest.mark.parametrize(
    "url", ["http://user:s3cr3t@n1", "n1:4222", "nats://", "tls://a b", "nats://s3cr3t@n1@n2"]
)
def test_what_is_no_bus_is_refused_without_showing_it(file, url):
    with pytest.raises(ConfigError, match="flag --bus: not the URL") as caught:
        load(SubscriberSettings, bus=(url,))
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "want"), [("*", ("*",)), ("foo, bar", ("foo", "bar")), (None, None), ("foo", ("foo",))]
)
def test_republish(monkeypatch, given, want):
    if given is not None:
        monkeypatch.setenv("CATERVA2_SUBSCRIBER_REPUBLISH", given)
    assert load(SubscriberSettings).republish == want


def test_a_url_at_the_top_is_no_section(file):
    file.write_text('broker = "http://first:1"\nsubscriber = "http://first:2"\n')
    assert load(BrokerSettings).listen.port == 8000
    assert load(ClientSettings).subscriber == "http://first:2"
    file.write_text('subscriber = "http://first:2"\n[subscriber]\ngap_bytes = 1\n')
    with pytest.raises(ConfigError, match=r"such as \[client\]"):
        load(SubscriberSettings)


def test_a_slip_of_the_pen_in_the_file_is_told(file):
    file.write_text("[subscriber]\nqouta_bytes = 1\n")
    with pytest.raises(ConfigError, match="did you mean quota_bytes"):
        load(SubscriberSettings)


def test_a_token_that_is_given_makes_one_that_cannot_be_read_harmless(file, monkeypatch):
    file.write_text('token_file = "absent"\n')
    monkeypatch.setenv("CATERVA2_TOKEN", "s3cr3t-t0k3n")
    assert load(ClientSettings).token == "s3cr3t-t0k3n"


def test_where_each_setting_comes_from(file, monkeypatch):
    file.write_text('broker = "http://first:1"\n[subscriber]\ngap_bytes = "1KiB"\nupstream_requests = 0\n')
    monkeypatch.setenv("CATERVA2_SUBSCRIBER_DURABILITY", "power")
    found = {setting.name: setting for setting in explain(SubscriberSettings)}
    assert (found["broker"].value, found["broker"].where) == ("http://first:1", f"{file} broker")
    assert (found["gap_bytes"].value, found["gap_bytes"].default) == (1024, 16 * 1024)
    assert found["gap_bytes"].where == f"{file} [subscriber] gap_bytes"
    assert (found["durability"].origin, found["durability"].where) == (
        "environment",
        "CATERVA2_SUBSCRIBER_DURABILITY",
    )
    assert found["slices"].origin == "default"
    assert found["token"].secret and not found["broker"].secret
    assert "upstream_requests" in str(found["upstream_requests"].error)
    assert found["upstream_requests"].value is None


def test_the_file_of_the_documentation_is_taken(file, tmp_path):
    page = Path(__file__).parent.parent / "docs/reference/configuration.md"
    file.write_text(page.read_text(encoding="utf-8").partition("```toml\n")[2].partition("```")[0])
    (tmp_path / "token").write_text("s3cr3t-t0k3n")
    assert load(SubscriberSettings).quota_bytes == 50 * 10**9
    assert load(ClientSettings).subscriber == "http://127.0.0.1:8002"
    assert load(BrokerSettings).token == "s3cr3t-t0k3n"
