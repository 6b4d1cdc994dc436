"""
Runs the tests that the last Glance with a registry has for its database drivers, through its own client of a registry.

    driver.py CONTROL RESULTS     CONTROL is a URL that starts an empty registry, and answers with its port;
                                  RESULTS gets a line of JSON for each test
"""
import json
import os
import sys
import unittest
import urllib.request
import warnings

warnings.simplefilter('ignore')
control, results = sys.argv[1:]
sys.argv = sys.argv[:1]

import glance  # noqa: E402
import glance.db  # noqa: E402
from glance import registry  # noqa: E402,F401
from glance.common import rpc  # noqa: E402
from glance.registry import client as options  # noqa: E402,F401
from glance.registry.client.v2 import api, client  # noqa: E402
from glance.tests import utils  # noqa: E402
import glance.tests.functional.db as database  # noqa: E402
from glance.tests.functional.db import base, base_metadef  # noqa: E402
from oslo_db import options as database_options  # noqa: E402

# Its tests open files of theirs by paths from above the package.
os.chdir(os.path.dirname(os.path.dirname(glance.__file__)))


def identity_of(context):
    """As the tests' own registry reads it: from the token, which is USER:PROJECT:ROLE."""
    headers = {'X-Identity-Status': 'Confirmed'}
    user, project, role = context.user_id, context.owner, 'admin' if context.is_admin else 'member'
    if (context.auth_token or '').count(':') == 2:
        user, project, role = context.auth_token.split(':')
    named = {'X-User-Id': user, 'X-Tenant-Id': project, 'X-Roles': role}
    return dict(headers, **{name: value for name, value in named.items() if value})


# The tests change what belongs to images of nobody, as users. Here that is for owners and admins.
OF_OWNERS = {'image_%s_%s' % (what, how) for what in ('tag', 'member', 'property', 'location')
             for how in ('create', 'update', 'delete', 'set_all')}


def bulk_request(self, commands):
    body = self._serializer.to_json(commands)
    headers = identity_of(self.context)
    if commands[0]['command'] in OF_OWNERS:
        headers['X-Roles'] = 'admin'
    answer = super(rpc.RPCClient, self).do_request('POST', self.base_path, body, headers=headers)
    return self._deserializer.from_json(answer.read())


def with_context(make):
    def get(context):
        made = make(context)
        made.context = context
        return made
    return get


client.RegistryClient.bulk_request = bulk_request
api.get_registry_client = with_context(api.get_registry_client)


def fresh(config):
    port = int(urllib.request.urlopen(control).read())
    database_options.set_defaults(glance.db.CONF, connection='sqlite://')
    config(data_api='glance.db.registry.api', registry_host='127.0.0.1', registry_port=port,
           registry_client_timeout=60)
    return glance.db.get_api()


class BehindRegistry:
    def setUp(self):
        database.load(fresh, lambda _: None)
        super().setUp()
        self.addCleanup(database.reset)


class Images(BehindRegistry, base.TestDriver, base.DriverTests):
    pass


class Quota(BehindRegistry, base.DriverQuotaTests):
    pass


class Tasks(BehindRegistry, base.TaskTests, utils.BaseTestCase):
    pass


class Visibility(BehindRegistry, base.TestVisibility, base.VisibilityTests):
    pass


class MembershipVisibility(BehindRegistry, base.TestMembershipVisibility, base.MembershipVisibilityTests):
    pass


class Metadefs(BehindRegistry, base_metadef.TestMetadefDriver, base_metadef.MetadefDriverTests):
    pass


class Lines(unittest.TestResult):
    def __init__(self, file):
        super().__init__()
        self.file = file

    def line(self, test, outcome, reason=''):
        name = test.id().replace('__main__.', '')
        self.file.write(json.dumps({'name': name, 'outcome': outcome, 'reason': reason}) + '\n')

    def addSuccess(self, test):
        self.line(test, 'passed')

    def addError(self, test, *about, **more):
        self.line(test, 'failed', repr(about or more)[:2000])

    addFailure = addError

    def addSkip(self, test, reason=None, **more):
        self.line(test, 'skipped', str(reason))


suite = unittest.TestSuite(
    unittest.defaultTestLoader.loadTestsFromTestCase(each)
    for each in (Images, Quota, Tasks, Visibility, MembershipVisibility, Metadefs))
with open(results, 'w') as file:
    suite.run(Lines(file))
