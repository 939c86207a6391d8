"""Where a request came from."""

import ipaddress

from django.conf import settings


def client_address(request) -> str:
    """The caller's IP address; of an IPv6 one its network of 64 bits, which is what one caller is given.

    Behind a proxy (BEHIND_PROXY) it is the last entry of X-Forwarded-For: that one the proxy itself has written,
    the others are whatever the caller claims. Empty where the server tells none.
    """
    address = request.META.get("REMOTE_ADDR", "")
    if settings.BEHIND_PROXY:
        forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "").rpartition(",")[2].strip()
        address = forwarded or address
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if parsed.version == 6:
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False).network_address)
    return str(parsed)
