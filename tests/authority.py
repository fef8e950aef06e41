"""A certificate authority for tests, by the openssl program: TLS is tested with certificates and clients nobody here wrote."""

import os
import subprocess
from pathlib import Path

NAMES = "DNS:localhost,IP:127.0.0.1"


class Authority:
    """An authority in a folder: ca.pem is what clients trust."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.key, self.ca = folder / "ca.key", folder / "ca.pem"
        self._key(self.key)
        self._run("req", "-x509", "-new", "-key", self.key, "-out", self.ca, "-days", "30", "-subj", "/CN=authority of the tests",
                  "-addext", "keyUsage=critical,keyCertSign")

    def issue(self, certificate: Path, key: Path, days: int = 20, names: str = NAMES) -> None:
        """A new key, and a certificate for it, in these files; fewer than 0 days: it has expired."""
        request, extensions = self.folder / "request.csr", self.folder / "extensions"
        self._key(key)
        self._run("req", "-new", "-key", key, "-subj", "/CN=server of the tests", "-out", request)
        extensions.write_text(f"subjectAltName={names}\nextendedKeyUsage=serverAuth\n")
        self._run("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.key, "-CAcreateserial", "-days", str(days),
                  "-extfile", extensions, "-out", certificate)

    @staticmethod
    def _key(path: Path) -> None:
        key = subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout"], check=True, capture_output=True).stdout
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(key)

    @staticmethod
    def _run(*words) -> None:
        done = subprocess.run(["openssl", *map(str, words)], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"openssl {words[0]}: {done.stderr}")
