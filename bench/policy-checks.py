"""Checks per second of CPU by oslo.policy's Enforcer, with the rules that Glance registers.

Reads {"cases": [{rule, credentials, target}...], "newDefaults": bool, "seconds": s} and writes
{"rate": checks per second, "allowed": [bool...]}. Credentials are dicts already: Glance makes them from the request's
context for each check, which is not counted.
"""
import json
import sys
import time

from glance import policies
from oslo_config import cfg
from oslo_policy import opts, policy

job = json.load(sys.stdin)
conf = cfg.ConfigOpts()
opts.set_defaults(conf, policy_file="none.yaml", enforce_new_defaults=job["newDefaults"],
                  enforce_scope=job["newDefaults"])
conf([], default_config_files=[], default_config_dirs=[])
conf.set_override("policy_dirs", [], "oslo_policy")
enforcer = policy.Enforcer(conf, use_conf=True, overwrite=False)
enforcer.suppress_default_change_warnings = True
enforcer.suppress_deprecation_warnings = True
enforcer.register_defaults(policies.list_rules())
cases = [(case["rule"], case["target"], case["credentials"]) for case in job["cases"]]


def once():
    answers = []
    for rule, target, credentials in cases:
        try:
            answers.append(bool(enforcer.enforce(rule, target, credentials)))
        except policy.InvalidScope:
            answers.append(False)
    return answers


allowed = once()
checks, began = 0, time.process_time()
while time.process_time() - began < job["seconds"]:
    once()
    checks += len(cases)
print(json.dumps({"rate": checks / (time.process_time() - began), "allowed": allowed}))
