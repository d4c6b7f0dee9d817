# The line below that makes the application is what Buildbot looks for.
import os

from buildbot.master import BuildMaster
from twisted.application import service

basedir = os.path.abspath(os.path.dirname(__file__))
application = service.Application("buildmaster")
BuildMaster(basedir, "master.cfg").setServiceParent(application)
