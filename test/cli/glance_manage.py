"""The real glance-manage, imported once and run in a child for each line of standard input: a list of arguments as
JSON. Answers each with a line of JSON: exit code, and what was printed to standard output and standard error."""

import json
import os
import sys
import tempfile

from glance.cmd import manage


def run(args):
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        pid = os.fork()
        if pid == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.argv = ["glance-manage", *args]
            code = 0
            try:
                manage.main()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
                if isinstance(end.code, str):
                    print(end.code, file=sys.stderr)
            except BaseException as error:
                code = 1
                print(repr(error), file=sys.stderr)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        out.seek(0)
        err.seek(0)
        return {"code": code, "stdout": out.read(), "stderr": err.read()}


for line in sys.stdin:
    print(json.dumps(run(json.loads(line))), flush=True)
