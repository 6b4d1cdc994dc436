/**
 * Records the transcripts in test/http/registry from the last Glance that had a registry (20.2.0, Ussuri), which it gets
 * from PyPI and starts with an empty database for each file:
 *
 *     tools/record-registry.ts [--compare] [FILE...]
 *
 * With --compare nothing is written, and what differs is printed. Exchanges marked `# differs:` keep their answers.
 */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, dirname, join, relative } from 'node:path'
import { parseArgs, promisify } from 'node:util'
import { cast, record, replay, transcripts } from '../test/support/golden.ts'
import { freePort, root, until } from '../test/support/product.ts'

/** Its own application, which gets who is calling from a token `USER:PROJECT:ROLES` that is believed. */
const SERVER = `
import sys, warnings
from wsgiref.simple_server import WSGIRequestHandler, make_server
port, database = int(sys.argv[1]), sys.argv[2]
sys.argv = ['glance-registry']
warnings.simplefilter('ignore')
from oslo_config import cfg
from oslo_db import options
from glance.common import config
config.parse_args(args=[], default_config_files=[])
options.set_defaults(cfg.CONF)
cfg.CONF.set_override('connection', 'sqlite:///' + database, group='database')
from glance.db.sqlalchemy import api as db_api, models, models_metadef
models.BASE.metadata.create_all(db_api.get_engine())
models_metadef.BASE_DICT.metadata.create_all(db_api.get_engine())
from glance.api.middleware.context import ContextMiddleware
from glance.registry import api
application = ContextMiddleware(api.API(None))

def with_identity(environ, start_response):
    parts = environ.get('HTTP_X_AUTH_TOKEN', '').split(':')
    if len(parts) >= 3:
        environ['HTTP_X_IDENTITY_STATUS'] = 'Confirmed'
        environ['HTTP_X_USER_ID'], project, environ['HTTP_X_ROLES'] = parts[:3]
        if project:
            environ['HTTP_X_PROJECT_ID'] = project
    def start(status, headers, exc_info=None):
        # Which Keystone's middleware adds.
        if status.startswith('401'):
            headers.append(('WWW-Authenticate', 'Keystone uri="http://127.0.0.1/identity"'))
        return start_response(status, headers, exc_info)
    return application(environ, start)

class Quiet(WSGIRequestHandler):
    def log_message(self, *args):
        pass

make_server('127.0.0.1', port, with_identity, handler_class=Quiet).serve_forever()
`

const { positionals, values } = parseArgs({ allowPositionals: true, options: { compare: { type: 'boolean' } } })
const { stdout } = await promisify(execFile)(`${root}tools/python-tools.sh`, ['glance-registry'], { timeout: 600_000 })
const dir = await mkdtemp(join(tmpdir(), 'glance-registry-'))
const script = join(dir, 'server.py')
await writeFile(script, SERVER)

for (const file of await transcripts()) {
  if (basename(dirname(file)) !== 'registry') continue
  if (positionals.length > 0 && !positionals.some((name) => file.endsWith(name))) continue
  const port = await freePort()
  const child = spawn(join(stdout.trim(), 'bin/python'), [script, String(port), join(dir, `${port}.sqlite`)], {
    cwd: dir,
    stdio: 'ignore',
  })
  try {
    const target = { baseUrl: `http://127.0.0.1:${port}`, tokens: cast(file) }
    await until(target.baseUrl, () =>
      fetch(target.baseUrl).then(
        () => true,
        () => false,
      ),
    )
    const name = relative('', file)
    if (values.compare) {
      for (const { title, details } of await replay(file, target))
        if (details.length > 0) console.log(`${name}: ${title}\n  ${details.join('\n  ')}`)
    } else console.log(`${name}: ${(await record(file, target, { keepMarked: true })).length} changed`)
  } finally {
    child.kill('SIGKILL')
    await once(child, 'exit')
  }
}
await rm(dir, { recursive: true })
