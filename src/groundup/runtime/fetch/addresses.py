"""Keeps a recipe's downloads off private networks. Reads the resolver; writes nothing."""

from __future__ import annotations

import ipaddress
import socket

from groundup.errors import SourceError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# RFC 6052: IPv4 addresses as a NAT64 gateway writes them.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class PrivateError(SourceError):
    """A host that is not in the open internet."""


def is_public(address: Address) -> bool:
    """Return whether an address lies in the open internet, seen through what wraps IPv4 in IPv6."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = (
            address.ipv4_mapped
            or address.sixtofour
            or (address.teredo[1] if address.teredo else None)
        )
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_unspecified
    )


def check_literal(host: str) -> None:
    """Raise PrivateError for a host that is an address itself, however it is written, and not
    public; nothing is resolved.
    """
    try:
        # As resolvers read it: 127.1, 0x7f000001 and 2130706433 are addresses, too.
        address: Address = ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        try:
            address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
        except ValueError:
            return
    if not is_public(address):
        raise PrivateError(f"{host}: it is not a public address; a recipe may not reach it")


def resolve_public(host: str, port: int) -> list[str]:
    """Return the addresses of a host after checking that every one of them is public.

    Raises:
        SourceError: the host is unknown.
        PrivateError: one of its addresses is private, loopback, link-local or reserved.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise SourceError(
            f"{host}: its address cannot be found ({error}); check the name and the network"
        ) from None
    addresses = list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))
    for text in addresses:
        if not is_public(ipaddress.ip_address(text)):
            raise PrivateError(
                f"{host}: it resolves to {text}, which is not a public address; a recipe may not"
                " reach it"
            )
    return addresses
