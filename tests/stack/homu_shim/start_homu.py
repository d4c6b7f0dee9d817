"""Starts an unmodified homu 0.2.0 on a Python and in a place it was not made for.

No decision of homu is changed. Three things around it are:

* github3.py 0.9.6 imports names from ``collections`` that Python 3.10 moved
  to ``collections.abc``; they are put back.
* homu has no setting for GitHub's address; ``HOMU_GITHUB_API`` is it.
* homu binds to all interfaces; here it listens on loopback, on a port that
  the system chooses, and writes that port to ``HOMU_PORT_FILE``.

The working directory holds ``cfg.toml`` and ``main.db``, as always with homu.
"""

import collections
import collections.abc
import os

for name in ("Callable", "Iterator", "Mapping", "MutableMapping"):
    if not hasattr(collections, name):
        setattr(collections, name, getattr(collections.abc, name))

import bottle
import waitress
from github3.session import GitHubSession

original_init = GitHubSession.__init__


def init_with_base_url(self):
    original_init(self)
    self.base_url = os.environ["HOMU_GITHUB_API"].rstrip("/")


def run_on_loopback(host, port, server):
    listener = waitress.create_server(bottle.default_app(), host="127.0.0.1", port=0)
    path = os.environ["HOMU_PORT_FILE"]
    with open(path + ".new", "w") as file:
        file.write(str(listener.effective_port))
    os.rename(path + ".new", path)
    listener.run()


GitHubSession.__init__ = init_with_base_url
bottle.run = run_on_loopback

from homu.main import main

main()
