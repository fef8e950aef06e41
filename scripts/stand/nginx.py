"""nginx in front of the gateways: nginx/switchboard.conf, with the lines that are marked `#@ name` replaced."""

import os
import re
import resource
import signal
import subprocess

from .layout import HOST, ROOT, Failure, write
from .member import Member
from .process import connects, find, send

TEMPLATE = ROOT / "nginx/switchboard.conf"
MARK = re.compile(r"^( *).*#@ (\w+)$")
BINARY = "/usr/sbin/nginx"      # not on the PATH of ordinary users


def render(text: str, lines: dict[str, list[str]]) -> str:
    """Each marked line becomes the lines of that name; a mark and a name that do not meet are an error."""
    out, used = [], set()
    for line in text.splitlines():
        mark = MARK.match(line)
        if mark is None:
            out.append(line)
        elif mark[2] not in lines:
            raise Failure(f"{TEMPLATE}: nothing to put for #@ {mark[2]}")
        else:
            # Several lines may share a mark (the list of gateways): the first stands for all.
            if mark[2] not in used:
                out += [mark[1] + new for new in lines[mark[2]]]
            used.add(mark[2])
    if used != set(lines):
        raise Failure(f"{TEMPLATE}: no line is marked #@ {', '.join(sorted(set(lines) - used))}")
    return "\n".join(out) + "\n"


class Nginx(Member):
    def __init__(self, stand, name):
        super().__init__(stand, name)
        self.config = stand.folder / "config/nginx.conf"

    def command(self):
        return [BINARY, "-p", str(self.home()), "-e", "stderr", "-c", str(self.config)]

    def recognises(self, argv):
        title = argv[0].split() if argv else []
        return argv[-2:] == self.command()[-2:] or (title[:3] == ["nginx:", "master", "process"] and title[-2:] == self.command()[-2:])

    def prepare(self):
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        gateways = [f"server {HOST}:{self.stand.port(name)} max_fails=3 fail_timeout=30s;" for name in self.stand.of("gateway")]
        temporary = [f"{kind}_temp_path {self.home()}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")]
        text = render(TEMPLATE.read_text(), {
            "user": ["user root;"] if os.geteuid() == 0 else [],
            "main": ["daemon off;", f"pid {self.stand.folder}/run/nginx.own.pid;", "error_log stderr error;"],
            "files": [f"worker_rlimit_nofile {files};"],
            "connections": [f"worker_connections {max(1024, files - 1000)};"],
            "log": [f"access_log {self.stand.folder}/logs/nginx-access.log brief buffer=64k flush=5s;", *temporary],
            "gateways": gateways or [f"server {HOST}:9 down;"],
            "listen": [f"listen {HOST}:{self.port} backlog=4096;"],
            "name": ["server_name _;"],
            # A load harness has one address. 65535 is the most that nginx takes.
            "per_address": ["limit_conn sockets 65535;"],
        })
        write(self.config, text)
        (self.stand.folder / "logs").mkdir(exist_ok=True)
        done = subprocess.run([*self.command()[:-2], "-t", "-q", *self.command()[-2:]], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise Failure(f"nginx refuses {self.config}\n{done.stderr}")

    def reload(self):
        """If the list of gateways has changed. Open sockets stay with the old workers."""
        before = self.config.read_text() if self.config.exists() else ""
        self.prepare()
        process = find(self)
        if process and self.config.read_text() != before:
            send([process], signal.SIGHUP)

    def answers(self):
        return connects(self.port)

    def url(self):
        return f"http://{HOST}:{self.port}"
