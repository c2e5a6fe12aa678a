import os
import urllib.request

import pytest

from caterva2.state import process_exists
from caterva2.testing.processes import ForkedService
from caterva2.testing.waiting import wait_until

ALONE = {"CATERVA2_CONFIG": os.devnull}


def test_a_service_is_killed_and_comes_back(tmp_path):
    arguments = ["broker", "--listen", "127.0.0.1:0", "--state", str(tmp_path / "broker")]
    urls = []
    for _ in range(2):
        broker = ForkedService(arguments, tmp_path / "log", ALONE)
        urls.append(broker.wait_listening())
        assert urllib.request.urlopen(f"{urls[-1]}/health").status == 200
        assert broker.pid != os.getpid()
        children = broker.children()
        broker.kill()
        wait_until(lambda: not any(map(process_exists, children)))  # noqa: B023
    assert urls[0] == urls[1]
    assert (tmp_path / "log").read_text().count("listening on") == 2


def test_what_keeps_a_service_from_starting_is_said(tmp_path):
    service = ForkedService(["publisher", "foo", str(tmp_path / "missing")], tmp_path / "log", ALONE)
    with pytest.raises(RuntimeError, match="missing does not exist"):
        service.wait_listening()
    service.kill()
