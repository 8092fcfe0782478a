"""Who is calling cannot be invented: not by a header, not by one host's many addresses."""

import hmac
import ipaddress
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.identity import Identity, IPNetwork, Principal
from app.errors import NotFound, Unauthenticated

pytestmark = pytest.mark.promise("R2")

PROXIES = ("10.0.0.0/8", "fd00::/8")


def identity(
    *keys: tuple[str, str],
    anonymous: bool = True,
    proxies: tuple[str, ...] = (),
    metrics_token: str | None = None,
    metrics_open: bool = False,
) -> Identity:
    networks: list[IPNetwork] = [ipaddress.ip_network(proxy) for proxy in proxies]
    return Identity(
        keys,
        anonymous_allowed=anonymous,
        trusted_proxies=networks,
        metrics_token=metrics_token,
        metrics_open=metrics_open,
    )


def name(peer: str | None, forwarded: str | None = None, proxies: tuple[str, ...] = ()) -> str:
    headers = {} if forwarded is None else {"x-forwarded-for": forwarded}
    return identity(proxies=proxies).identify(headers, peer).name


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_a_key_names_its_caller() -> None:
    """A caller goes by the name of its key, whatever address it comes from."""
    keys = identity(("ada", "key-of-ada"), ("grace", "key-of-grace"), anonymous=False)
    for address in ("192.0.2.1", "198.51.100.7", None):
        assert keys.identify(bearer("key-of-grace"), address) == Principal("grace", True)
    assert keys.identify({"authorization": "bearer  key-of-ada "}, None).name == "ada"


def test_two_keys_may_name_one_caller() -> None:
    """While a key is replaced, the old and the new one are the same caller."""
    keys = identity(("ada", "old-key"), ("ada", "new-key"), anonymous=False)
    assert keys.identify(bearer("old-key"), None) == keys.identify(bearer("new-key"), None)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("wrong"),
        bearer("key-of-ad"),
        bearer("key-of-ada2"),
        bearer("KEY-OF-ADA"),
        bearer(""),
        {"authorization": "key-of-ada"},
        {"authorization": "Basic key-of-ada"},
        bearer("k\udce9y"),
    ],
    ids=repr,
)
def test_without_a_valid_key_nobody_gets_in(headers: dict[str, str]) -> None:
    """A missing, wrong or misspelt key is refused, and the refusal says what is expected."""
    with pytest.raises(Unauthenticated) as refusal:
        identity(("ada", "key-of-ada"), anonymous=False).identify(headers, "192.0.2.1")
    assert refusal.value.headers == {"www-authenticate": "Bearer"}


def test_a_wrong_key_is_not_anonymous() -> None:
    """Where keys exist, a wrong one is refused even if callers without any are served."""
    keys = identity(("ada", "key-of-ada"), anonymous=True)
    with pytest.raises(Unauthenticated):
        keys.identify(bearer("wrong"), "192.0.2.1")
    assert keys.identify({}, "192.0.2.1") == Principal("address:192.0.2.1", False)


def test_without_keys_any_bearer_is_anonymous() -> None:
    """A client that must send some key is served by a service that has none."""
    assert identity().identify(bearer("whatever"), "192.0.2.1").name == "address:192.0.2.1"


@pytest.mark.parametrize(
    ("peer", "forwarded", "caller"),
    [
        ("192.0.2.1", "198.51.100.7", "192.0.2.1"),  # no proxy: what it says is worth nothing
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.7", "198.51.100.7"),  # the left one may be forged
        ("10.0.0.1", "198.51.100.7, 10.9.9.9", "198.51.100.7"),  # two proxies
        ("10.0.0.1", "10.1.1.1,10.9.9.9", "10.1.1.1"),
        ("10.0.0.1", "198.51.100.7, unknown", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.7:1234", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", " , ,", "10.0.0.1"),
        ("::ffff:10.0.0.1", "198.51.100.7", "198.51.100.7"),  # an IPv4 proxy on an IPv6 socket
        ("fd00::1", "198.51.100.7", "198.51.100.7"),
    ],
)
def test_forwarded_addresses_count_behind_proxies_only(
    peer: str, forwarded: str | None, caller: str
) -> None:
    """`X-Forwarded-For` is walked from the right, past proxies that are trusted, and no further."""
    assert name(peer, forwarded, PROXIES) == f"address:{caller}"


@given(st.text(st.characters(codec="latin-1"), max_size=40), st.ip_addresses(v=4).map(str))
def test_a_forged_header_gains_nothing(forged: str, real: str) -> None:
    """Whatever a caller writes into the header, its proxy's entry behind it is what counts."""
    if not any(ipaddress.ip_address(real) in ipaddress.ip_network(p) for p in PROXIES[:1]):
        assert name("10.0.0.1", f"{forged}, {real}", PROXIES) == f"address:{real}"
    assert name("203.0.113.9", forged, PROXIES) == "address:203.0.113.9"


@given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
def test_one_ipv6_host_is_one_caller(address: ipaddress.IPv6Address, host: int) -> None:
    """All addresses of a /64 are one caller, those of the next /64 another."""
    if address.ipv4_mapped:
        return
    prefix = int(address) >> 64 << 64
    neighbour = ipaddress.IPv6Address(prefix + host)
    if neighbour.ipv4_mapped is None:
        assert name(str(address)) == name(str(neighbour))
    assert name(str(address)) != name(str(ipaddress.IPv6Address(prefix ^ (1 << 64))))


@pytest.mark.parametrize(
    ("peer", "caller"),
    [
        ("::ffff:192.0.2.1", "address:192.0.2.1"),
        ("fe80::1%eth0", "address:fe80::/64"),
        (None, "address:unknown"),
        ("a-socket", "address:unknown"),
    ],
)
def test_odd_addresses_have_a_name(peer: str | None, caller: str) -> None:
    """Mapped, scoped and missing addresses are callers too, the last ones all the same."""
    assert name(peer) == caller


def test_metrics_have_a_token_of_their_own() -> None:
    """`/metrics` opens to its token and not to a caller's key."""
    guarded = identity(("ada", "key-of-ada"), metrics_token="token-of-metrics")
    guarded.check_metrics(bearer("token-of-metrics"))
    for headers in ({}, bearer("key-of-ada")):
        with pytest.raises(Unauthenticated):
            guarded.check_metrics(headers)


def test_metrics_without_a_token_are_hidden_in_production() -> None:
    """Without a token there are no metrics in production, and open ones in development."""
    with pytest.raises(NotFound):
        identity(metrics_open=False).check_metrics({})
    identity(metrics_open=True).check_metrics({})


def test_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Digests of one length, all of them, whichever fits: the time tells nothing about the keys."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    keys = [("ada", "short"), ("grace", "a" * 200), ("alan", "another")]
    identity = Identity(
        keys,
        anonymous_allowed=False,
        trusted_proxies=(),
        metrics_token=None,
        metrics_open=False,
    )
    for key in ("short", "another", "no such key", ""):
        compared.clear()
        with suppress(Unauthenticated):
            identity.identify({"authorization": f"Bearer {key}"}, None)
        assert len(compared) == (len(keys) if key else 0)
        assert {len(digest) for pair in compared for digest in pair} <= {32}
