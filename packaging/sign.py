#!/usr/bin/env python3
"""Signs files of a release with an Ed25519 key, in the two forms that a bare machine can check:

    sign.py KEY FILE...      FILE.sig: the 64 bytes (RFC 8032), for OpenSSL and for the nodes themselves
                             FILE.sshsig: for ssh-keygen -Y verify (PROTOCOL.sshsig of OpenSSH), namespace bitrix-node
    sign.py KEY --public     the public key for install.sh, two words: as in PEM, and as OpenSSH writes it

The key stays with openssl(1), which may have it from wherever it likes.
"""

import base64
import hashlib
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

KIND, NAMESPACE, HASH = b"ssh-ed25519", b"bitrix-node", b"sha512"
MAGIC, VERSION = b"SSHSIG", 1
# What OpenSSH breaks lines at.
WIDTH = 70
# Of the key in SubjectPublicKeyInfo, the last bytes (RFC 8410).
KEY_LENGTH = 32


def openssl(*words):
    return subprocess.run(["openssl", *map(str, words)], check=True, stdout=subprocess.PIPE).stdout


def public(key):
    return openssl("pkey", "-in", key, "-pubout", "-outform", "DER")


def sign(key, data):
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return openssl("pkeyutl", "-sign", "-inkey", key, "-rawin", "-in", file.name)


def string(data):
    """RFC 4251, section 5."""
    return struct.pack(">I", len(data)) + data


def ssh_key(key):
    return string(KIND) + string(public(key)[-KEY_LENGTH:])


def ssh_signature(key, data):
    common = string(NAMESPACE) + string(b"") + string(HASH)
    signed = sign(key, MAGIC + common + string(hashlib.sha512(data).digest()))
    blob = MAGIC + struct.pack(">I", VERSION) + string(ssh_key(key)) + common + string(string(KIND) + string(signed))
    text = base64.b64encode(blob).decode()
    lines = [text[at : at + WIDTH] for at in range(0, len(text), WIDTH)]
    return "\n".join(["-----BEGIN SSH SIGNATURE-----", *lines, "-----END SSH SIGNATURE-----", ""])


def main():
    key, *rest = sys.argv[1:]
    if rest == ["--public"]:
        print(base64.b64encode(public(key)).decode(), base64.b64encode(ssh_key(key)).decode())
        return
    for name in rest:
        data = Path(name).read_bytes()
        Path(f"{name}.sig").write_bytes(sign(key, data))
        Path(f"{name}.sshsig").write_text(ssh_signature(key, data))


if __name__ == "__main__":
    main()
