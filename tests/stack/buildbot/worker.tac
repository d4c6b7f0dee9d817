# The workers of one machine. Their settings are in settings.json beside it.
import json
import os

from buildbot_worker.bot import Worker
from twisted.application import service

basedir = os.path.abspath(os.path.dirname(__file__))
with open(os.path.join(basedir, "settings.json")) as file:
    settings = json.load(file)

application = service.Application("buildbot-worker")
for name in settings["names"]:
    worker = Worker(
        "127.0.0.1",
        settings["port"],
        name,
        settings["password"],
        os.path.join(basedir, name),
        keepalive=600,
        numcpus=1,
    )
    # How long a worker keeps back output, in seconds: 5 if left alone. This and
    # the log's number of lines are how a run shows that it lives.
    worker.bot.buffer_timeout = settings["output_delay_seconds"]
    worker.setServiceParent(application)
