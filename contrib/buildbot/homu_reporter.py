"""Tells homu, from a Buildbot 4 master, when builds start and how they end.

homu was written for Buildbot 0.8, whose master pushed each event as a form
with a field ``packets``. Buildbot 0.9 dropped that push, and homu never
learnt another one. This reporter sends the part of it that homu reads.

In ``master.cfg``::

    from homu_reporter import HomuReporter

    c["services"].append(
        HomuReporter(
            "http://127.0.0.1:54856/buildbot",
            secret=util.Secret("homu"),
            builders=["linux", "mac"],
        )
    )

README.md beside this file says how to install it, what it sends and what it
cannot do.
"""

from __future__ import annotations

import json
from io import BytesIO
from urllib.parse import urlencode, urlsplit

from buildbot import config, interfaces
from buildbot.process.results import (
    CANCELLED,
    EXCEPTION,
    FAILURE,
    RETRY,
    SKIPPED,
    SUCCESS,
    WARNINGS,
)
from buildbot.reporters import utils
from buildbot.reporters.base import ReporterBase
from twisted.internet import defer, error
from twisted.internet.task import deferLater
from twisted.python import log
from twisted.web.client import Agent, FileBodyProducer, PartialDownloadError, readBody
from twisted.web.http_headers import Headers
from zope.interface import implementer

USER_AGENT = "homu-reporter/1"

# One delivery: from the first byte of the connection to the last of the
# answer. homu answers after its own calls to GitHub, which take seconds.
TIMEOUT_SECONDS = 30

# The pauses between tries while homu does not accept connections: enough for
# a restart, short enough to leave nothing behind for hours.
RETRY_DELAYS_SECONDS = (1, 5, 15, 30, 60)

# Failures in which no byte of the request can have reached homu. All others
# leave it open whether homu acted on the message, so that sending it again
# could report the same result twice.
NOT_SENT = (error.ConnectError, error.DNSLookupError)

# The words that a Buildbot 0.8 master put first into a build's ``text``. homu
# reads three of them: a build is green with "successful", is passed over
# with "retry" (the master runs it again), and asks the master who stopped it
# with "interrupted". Only 0.8 could answer that question, so a cancelled
# build is sent as a plain exception: red.
WORDS = {
    SUCCESS: ["build", "successful"],
    WARNINGS: ["build", "successful", "warnings"],
    SKIPPED: ["build", "successful", "skipped"],
    FAILURE: ["failed"],
    EXCEPTION: ["exception"],
    RETRY: ["retry", "worker", "lost"],
    CANCELLED: ["exception", "cancelled"],
}


def packet(event, build):
    """Returns one packet in the form of Buildbot 0.8, or None without a revision.

    ``build`` is a build of the data API, with its properties, its steps, its
    builder and its buildset (``buildbot.reporters.utils.getDetailsForBuild``).
    """
    revision = _revision(build)
    if revision is None:
        return None

    results = build["results"]
    steps = build.get("steps", [])
    text = []
    if results is not None:
        text = list(WORDS[results])
        if results in (FAILURE, EXCEPTION):
            text += [step["name"] for step in steps if step["results"] == results]

    return {
        "event": event,
        "payload": {
            "build": {
                "builderName": build["builder"]["name"],
                "number": build["number"],
                "results": results,
                "text": text,
                "reason": build["buildset"]["reason"],
                "properties": [
                    ["revision", revision, "Build"],
                    ["buildnumber", build["number"], "Build"],
                    ["branch", _property(build, "branch"), "Build"],
                ],
                "steps": [
                    {
                        "name": step["name"],
                        "text": [step["state_string"]],
                        "results": [step["results"], []],
                    }
                    for step in steps
                ],
            }
        },
    }


def _property(build, name):
    value, _source = build.get("properties", {}).get(name, (None, None))
    return value


def _revision(build):
    """The commit under test. A build of several codebases has no such property."""
    revision = _property(build, "revision")
    if revision:
        return revision
    for stamp in build["buildset"]["sourcestamps"]:
        if stamp["revision"]:
            return stamp["revision"]
    return None


@implementer(interfaces.IReportGenerator)
class PacketGenerator:
    """Makes one packet of each start and each end of a build."""

    wanted_event_keys = [
        ("builds", None, "new"),
        ("builds", None, "finished"),
    ]
    compare_attrs = ["builders"]

    def __init__(self, builders=None):
        self.builders = builders

    def check(self):
        if self.builders is not None and not isinstance(self.builders, (list, tuple)):
            config.error("HomuReporter: builders must be a list of builder names, or None")

    def generate_name(self):
        return "packets"

    @defer.inlineCallbacks
    def generate(self, master, reporter, key, build):
        yield utils.getDetailsForBuild(master, build, want_properties=True, want_steps=True)
        if self.builders is not None and build["builder"]["name"] not in self.builders:
            return None

        started = key[2] == "new"
        if (
            not started
            and build["results"] == CANCELLED
            and getattr(master.botmaster, "shuttingDown", False)
        ):
            # A master that stops cancels what is running. That says nothing
            # about the commit.
            build["results"] = RETRY

        return packet("buildStarted" if started else "buildFinished", build)


class HomuReporter(ReporterBase):
    """Posts the packets of chosen builders to one homu.

    :param url: homu's address for packets, ``http://HOST:PORT/buildbot``
    :param secret: ``secret`` of ``[repo.NAME.buildbot]`` in homu's ``cfg.toml``
    :param builders: names to report; None reports all (homu ignores strangers)
    :param timeout: seconds for one delivery
    :param retry_delays: seconds to wait between tries while homu refuses
        connections; their number is the number of further tries
    """

    secrets = ["secret"]
    compare_attrs = ["url", "secret", "builders", "timeout", "retry_delays"]

    def checkConfig(
        self,
        url,
        secret,
        builders=None,
        timeout=TIMEOUT_SECONDS,
        retry_delays=RETRY_DELAYS_SECONDS,
        **kwargs,
    ):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            config.error(f"HomuReporter: {url!r} is not an http or https address")
        if not parts.path.endswith("/buildbot"):
            config.error(f"HomuReporter: {url!r} must end with homu's path for packets, /buildbot")
        if timeout <= 0:
            config.error("HomuReporter: timeout must be more than 0 seconds")
        if self.name is None:
            # Two homus can hear one master, so the address is part of the name.
            self.name = f"HomuReporter({parts.netloc})"
        super().checkConfig(generators=[PacketGenerator(builders)], **kwargs)

    @defer.inlineCallbacks
    def reconfigService(
        self,
        url,
        secret,
        builders=None,
        timeout=TIMEOUT_SECONDS,
        retry_delays=RETRY_DELAYS_SECONDS,
        **kwargs,
    ):
        self.url = url
        self.secret = secret
        self.builders = builders
        self.timeout = timeout
        self.retry_delays = tuple(retry_delays)
        self._agent = Agent(self.master.reactor, connectTimeout=timeout)
        self._pauses = set()
        self._stopping = False
        yield super().reconfigService(generators=[PacketGenerator(builders)], **kwargs)

    @defer.inlineCallbacks
    def stopService(self):
        # The base class waits for messages on their way. A pause between two
        # tries must not hold up the master's own end.
        self._stopping = True
        for pause in list(self._pauses):
            pause.cancel()
        yield super().stopService()

    @defer.inlineCallbacks
    def sendMessage(self, reports):
        """Delivers one packet. Never fails: what is lost is logged."""
        (report,) = reports
        build = report["payload"]["build"]
        what = f"{report['event']} of {build['builderName']}/{build['number']}"
        form = urlencode({"packets": json.dumps([report]), "secret": self.secret}).encode()

        for delay in (*self.retry_delays, None):
            try:
                status = yield self._post(form)
            except NOT_SENT as reason:
                if delay is None or self._stopping:
                    log.msg(f"HomuReporter: {what} is lost, homu cannot be reached: {reason}")
                    return
                yield self._pause(delay)
            except Exception as reason:
                log.msg(f"HomuReporter: {what} may be lost, homu gave no answer: {reason!r}")
                return
            else:
                if status != 200:
                    log.msg(f"HomuReporter: {what} was refused, homu answered {status}")
                return

    @defer.inlineCallbacks
    def _post(self, form):
        # The deadline covers the whole exchange: an Agent by itself waits for
        # ever for a peer that accepted the connection and then stays silent.
        exchange = self._exchange(form)
        exchange.addTimeout(self.timeout, self.master.reactor)
        status = yield exchange
        return status

    @defer.inlineCallbacks
    def _exchange(self, form):
        response = yield self._agent.request(
            b"POST",
            self.url.encode(),
            Headers(
                {
                    "Content-Type": ["application/x-www-form-urlencoded"],
                    "User-Agent": [USER_AGENT],
                }
            ),
            FileBodyProducer(BytesIO(form)),
        )
        try:
            yield readBody(response)
        except PartialDownloadError:
            # An answer without a length ends when the connection does.
            pass
        return response.code

    @defer.inlineCallbacks
    def _pause(self, seconds):
        pause = deferLater(self.master.reactor, seconds)
        self._pauses.add(pause)
        try:
            yield pause
        except defer.CancelledError:
            pass
        finally:
            self._pauses.discard(pause)
