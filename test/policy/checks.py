"""Asks the real Glance's own rules: questions come as JSON on standard input, answers go as JSON to standard output."""

import json
import sys

from oslo_config import cfg
from oslo_context import context
from oslo_policy import policy

from glance import policies


def main():
    conf = cfg.ConfigOpts()
    conf([], default_config_files=[], default_config_dirs=[])
    enforcer = policy.Enforcer(conf, policy_file="none.yaml", default_rule="default")
    conf.set_override("enforce_new_defaults", True, "oslo_policy")
    enforcer.register_defaults(policies.list_rules())
    answers = [answer(enforcer, question) for question in json.load(sys.stdin)]
    json.dump(answers, sys.stdout)


def answer(enforcer, question):
    asked = question["credentials"]
    caller = context.RequestContext(
        user_id=asked["user_id"],
        project_id=asked["project_id"],
        roles=asked["roles"],
        system_scope=asked["system_scope"],
        user_domain_id="default",
        project_domain_id="default",
    )
    try:
        allowed = enforcer.enforce(question["rule"], question["target"], caller)
    except policy.InvalidScope:
        allowed = False
    return "allow" if allowed else "deny"


main()
