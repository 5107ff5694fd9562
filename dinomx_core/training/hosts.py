"""Addresses of this host, as others reach it."""

import socket
import struct

SIOCGIFADDR = 0x8915  # Linux: the address of an interface


def addresses(host: str, port: int) -> list[str]:
    """The addresses of a host. Raises OSError when it cannot be found."""
    return list(dict.fromkeys(str(info[4][0]) for info in socket.getaddrinfo(host.strip("[]"), port)))


def is_here(host: str) -> bool:
    """Whether a host is this one: an address of it can be opened here."""
    for address in addresses(host, 0):
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            try:
                probe.bind((address, 0))
                return True
            except OSError:
                pass
    return False


def address_towards(host: str, port: int) -> str:
    """The address that this host is reached by from another one. Nothing is sent."""
    address = addresses(host, port)[0]
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, port))
        return str(probe.getsockname()[0])


def interface_of(address: str) -> str:
    """The network interface that has an IPv4 address, or "" where none has, or it cannot be found out."""
    try:
        import fcntl
    except ImportError:
        return ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                found = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:
                continue
            if socket.inet_ntoa(found[20:24]) == address:
                return name
    return ""
