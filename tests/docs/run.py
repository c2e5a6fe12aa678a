"""Runs the examples of a page, in order, in an empty directory, against real services.

- Python is run in one process for each page. Of a shell, each command: what has to go on (services, and who
  listens to events) in the background.
- Services get ports that are free, and directories of their own for their state, where the page does not say
  which. The commands and blocks that follow use the subscriber that was started last, also where the page has
  its default address. A page that starts no service has one that publishes the sample data as ``foo``.
- What installs is not run: it is all there. Nor is curl, where there is none.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import urllib3

from caterva2.testing.waiting import wait_until

from ..conftest import Process, Site
from . import interpreter, pages, samples

SERVICES = {"serve", "broker", "publisher", "subscriber"}
LISTENING = {"events"}
INSTALLING = re.compile(r"(\S*pip|make|python3 -m venv|uv) ")
TIMEOUT_S = 60


def commands_of(text: str) -> Iterator[str]:
    """Return the commands of a block: its lines, joined where one goes on in the next."""
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line


@contextmanager
def at_most(seconds: float, stop: Callable[[], None]) -> Iterator[None]:
    """Call a function if what is done within takes too long."""
    timer = threading.Timer(seconds, stop)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class PageRun:
    """A page that is run; a context manager.

    Parameters
    ----------
    site : Site
        Its directory is where the commands are run, below ``work``.
    page : Path
    """

    def __init__(self, site: Site, page: Path) -> None:
        self.site, self.page = site, page
        self.root = samples.write(site.directory / "published", pages.data_of(page))
        self.work = site.directory / "work"
        self.work.mkdir()
        self.environment = site.environment
        self.environment.pop("PYTHONWARNINGS", None)  # those of other libraries are not of concern here
        self.environment["PATH"] = f"{self._tools()}{os.pathsep}{os.environ['PATH']}"
        self.environment["HOME"] = str(site.directory)
        self.urls = {"broker": "", "subscriber": ""}
        self._interpreter: subprocess.Popen[str] | None = None

    def __enter__(self) -> PageRun:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._interpreter is not None:
            assert self._interpreter.stdin and self._interpreter.stdout
            self._interpreter.stdin.close()
            self._interpreter.stdout.close()
            with at_most(TIMEOUT_S, self._interpreter.kill):
                self._interpreter.wait()

    def run(self) -> None:
        """Run all of its blocks that are not marked."""
        blocks = [block for block in pages.blocks_of(self.page, "sh", "python") if block.reason is None]
        starts = re.compile(r"^cat2 (serve|broker)\b", re.MULTILINE)
        if blocks and not any(block.language == "sh" and starts.search(block.text) for block in blocks):
            self.start(f"cat2 serve foo={shlex.quote(str(self.root))}")
        for block in blocks:
            if block.language == "python":
                self.interpret(block)
            else:
                for command in commands_of(block.text):
                    self.command(command)

    def command(self, text: str) -> None:
        """Run a command of a shell."""
        verb = re.match(r"cat2 (\w+)", text)
        if INSTALLING.match(text) or (text.startswith("curl ") and shutil.which("curl") is None):
            print(f"not run here: {text}")
            return
        text = self.here(text)
        if verb and verb[1] in SERVICES:
            self.start(text)
        elif verb and verb[1] in LISTENING and "--count" not in text:
            self.site.start(*shlex.split(text, comments=True)[1:], directory=self.work)
        else:
            self.shell(text)

    def shell(self, text: str) -> None:
        """Run a command to its end; what it exports is there for the next ones."""
        exported = self.site.directory / "exported.sh"
        script = f"set -euo pipefail\n{text}\nexport -p > {shlex.quote(str(exported))}"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.work,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        said = f"{self.page.name}: {text}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == 0, said
        print(said)
        for name, value in re.findall(
            r'^declare -x (CATERVA2_\w+)="(.*)"$', exported.read_text(), re.MULTILINE
        ):
            self.environment[name] = value

    def start(self, text: str) -> Process:
        """Start a service in the background, and wait until it and its roots are there."""
        verb, *arguments = shlex.split(text, comments=True)[1:]
        if "--state" not in arguments:
            arguments += ["--state", str(self.site.directory / f"{verb}-{len(self.site.processes)}")]
        if verb == "serve":
            arguments += ["--port", "0"]
        elif "--listen" not in arguments:
            arguments += ["--listen", "127.0.0.1:0"]
        if verb in {"publisher", "subscriber"} and "--broker" not in arguments:
            arguments += ["--broker", self.urls["broker"]]
        process = self.site.start(verb, *arguments, directory=self.work)
        for service in ("broker", "subscriber"):
            if verb in {"serve", service}:
                self.urls[service] = process.url(service).replace("0.0.0.0", "127.0.0.1")
        if verb == "publisher":
            process.url(verb)
        self.environment["CATERVA2_SUBSCRIBER"] = self.urls["subscriber"]
        if self.urls["subscriber"]:
            wait_until(self._is_ready, 30)
        return process

    def _is_ready(self) -> bool:
        token = self.environment.get("CATERVA2_TOKEN", "")
        if (self.work / "token").exists():
            token = (self.work / "token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with urllib3.PoolManager() as http:
            answer = http.request("GET", f"{self.urls['subscriber']}/api/roots", headers=headers)
            assert answer.status == 200, answer.data
            roots = answer.json().values()
        return bool(roots) and all(root["datasets"] and root["freshness"] == "fresh" for root in roots)

    def interpret(self, block: pages.Block) -> None:
        """Run a block of Python."""
        if self._interpreter is None:
            self._interpreter = subprocess.Popen(
                [sys.executable, interpreter.__file__],
                cwd=self.work,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._interpreter.stdin and self._interpreter.stdout
        asked = {"code": self.here(block.text), "file": str(self.page), "line": block.line}
        asked["environment"] = {n: v for n, v in self.environment.items() if n.startswith("CATERVA2_")}
        print(json.dumps(asked), file=self._interpreter.stdin, flush=True)
        with at_most(TIMEOUT_S, self._interpreter.kill):
            failure = json.loads(self._interpreter.stdout.readline() or '"it did not end"')
        assert failure is None, failure

    def here(self, text: str) -> str:
        """Return a text with what it names elsewhere as it is here."""
        places = {
            r"/path/to/data|/data/\w+\b(?![./])": str(self.root),
            r"/tmp\b": str(self.work),
            r"http://first:8000": self.urls["broker"],
            r"http://(?:127\.0\.0\.1|localhost|mirror):8002": self.urls["subscriber"],
            r"--listen 0\.0\.0\.0:\d+": "--listen 127.0.0.1:0",
            r"--host 0\.0\.0\.0": "--host 127.0.0.1",
            r" --url http://store:\d+": "",
        }
        pattern = "|".join(f"({name})" for name in places)  # at once: a place may look like a name

        def place(match: re.Match[str]) -> str:
            assert match.lastindex is not None
            return list(places.values())[match.lastindex - 1]

        return re.sub(pattern, place, text)

    def _tools(self) -> Path:
        """Make a directory of the commands that are installed, as this interpreter has them."""
        tools = self.site.directory / "bin"
        tools.mkdir()
        for name, arguments in {"cat2": "-m caterva2 ", "python": "", "python3": ""}.items():
            (tools / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments}"$@"\n')
            (tools / name).chmod(0o755)
        return tools
