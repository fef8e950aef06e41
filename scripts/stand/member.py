"""What every kind of process of the stand has: its files, its command, how it is asked whether it is ready."""

import os
import signal
from pathlib import Path

from .layout import HOST, Stand


class Member:
    stop_signal = signal.SIGTERM
    stop_limit_s = 10.0
    ready_limit_s = 120.0
    log_began = 0

    def __init__(self, stand: Stand, name: str):
        self.stand = stand
        self.name = name
        self.port = stand.port(name)
        self.log = stand.folder / "logs" / f"{name}.log"

    def command(self) -> list[str]:
        """Its last two words must tell this process from any other on the machine."""
        raise NotImplementedError

    def recognises(self, argv: list[str]) -> bool:
        return argv[-2:] == self.command()[-2:]

    def prepare(self) -> None:
        """Writes files and makes data folders, as far as they are missing. The process does not run."""

    def after_start(self) -> None:
        """Once it answers: roles, databases, … as far as they are missing."""

    def answers(self) -> bool:
        """Does it serve, now? Within about a second."""
        raise NotImplementedError

    def url(self) -> str:
        return f"{HOST}:{self.port}"

    def ports(self) -> list[int]:
        return [self.port]

    def user(self) -> str | None:
        """Somebody else to run as, if this is root."""
        return None

    def home(self) -> Path:
        """The working directory."""
        path = self.data_folder()
        path.mkdir(parents=True, exist_ok=True)
        return path

    def data_folder(self) -> Path:
        return self.stand.folder / "data" / self.name

    def environment(self) -> dict[str, str]:
        # SWITCHBOARD_… are the server's own settings; those of the script must not reach it.
        return {name: value for name, value in os.environ.items() if not name.startswith("SWITCHBOARD_")}
