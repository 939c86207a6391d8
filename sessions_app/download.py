"""How people fetch a session's images: commands ready to copy."""

import shlex
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from microscopes.models import DataServer

USER = "USERNAME"
SSH_PROTOCOLS = (DataServer.Protocol.SFTP, DataServer.Protocol.RSYNC)


@dataclass(frozen=True)
class Way:
    """One way to fetch the images: a `command` to copy, or a `link` to open."""

    title: str
    hint: str
    command: str = ""
    link: str = ""


def ways(session) -> list[Way]:
    """Those that the session's data server offers; none without a server or path.

    Commands hold the placeholder USERNAME for the person's account on the data server, and quote everything else
    for a POSIX shell (the SMB address for the Windows Explorer).
    """
    server = session.data_server
    if server is None or not session.data_path:
        return []
    found = []
    if server.host and server.protocol in SSH_PROTOCOLS:
        found += _ssh(server, session)
    if server.globus_collection:
        query = urlencode(
            {"origin_id": server.globus_collection, "origin_path": session.data_path}, quote_via=quote
        )
        found.append(
            Way(
                "Globus",
                f"Opens the folder in collection {server.globus_collection}; choose your own endpoint beside it.",
                link=f"https://app.globus.org/file-manager?{query}",
            )
        )
    if server.smb_share:
        share = server.smb_share.rstrip("\\/")
        path = session.data_path.strip("/").replace("/", "\\")
        found.append(
            Way("Windows share (SMB)", "Paste it into the address bar of the Explorer.", f"{share}\\{path}")
        )
    return found


def _ssh(server, session) -> list[Way]:
    # Without a slash at its end, so that each command makes a folder of the same name where it is run.
    source = f"{USER}@{server.host}:{session.data_path.rstrip('/') or '/'}"
    port = str(server.port) if server.port and server.port != 22 else None
    # -s hands the path over as it is, where an older rsync would let the far shell split it at spaces; sftp, and
    # scp since OpenSSH 9, do so by themselves.
    rsync = ["rsync", "-avs", "--partial", "--progress", *(["-e", f"ssh -p {port}"] if port else [])]
    sftp = ["sftp", "-r", *(["-P", port] if port else [])]
    scp = ["scp", "-r", *(["-P", port] if port else [])]
    return [
        Way(
            "rsync",
            "Copies only what is missing: run it again after a break, or while images still arrive.",
            shlex.join([*rsync, source, "."]),
        ),
        Way("sftp", "Copies the whole folder.", shlex.join([*sftp, source, "."])),
        Way("scp", "Copies the whole folder.", shlex.join([*scp, source, "."])),
    ]
