"""Runs the real glance-manage many times: its modules are loaded once, and each call is a fork.

Reads a JSON object a line: {"argv": [...]} runs the command, {"argv": [...], "data": "train"} the data migrations of
a release after the configuration of argv was read. Answers each with {"code", "stdout", "stderr"}.
"""
import json
import os
import sys
import tempfile
import traceback

from glance.cmd import manage
from glance.db.sqlalchemy.alembic_migrations import data_migrations


def migrate_data(release):
    # What the command would do before its action; the action itself only knows the newest release.
    manage.DbCommands.version = lambda self: data_migrations.migrate(release=release)
    manage.main()


def call(request):
    sys.argv = ["glance-manage", *request["argv"]]
    try:
        migrate_data(request["data"]) if "data" in request else manage.main()
        return 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1


def forked(request):
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            code = call(request)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        status = os.waitpid(child, 0)[1]
        out.seek(0)
        err.seek(0)
        text = lambda file: file.read().decode()
        return {"code": os.waitstatus_to_exitcode(status), "stdout": text(out), "stderr": text(err)}


for line in iter(sys.stdin.readline, ""):
    answer = forked(json.loads(line))
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
