"""What an address says about where it leads."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine: by name, by address, or as "any address"."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
