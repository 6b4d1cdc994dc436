import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { cache, judgeRun, kit, output, readJson, readReport, readSkips, show } from '../kit.ts'
import type { Running } from '../service.ts'
import type { Verdict } from '../verdict.ts'

/** openstacksdk's functional tests: those of its image service, and those of its older cloud layer for images. */
export async function openstacksdk(running: Running, venv: string): Promise<Verdict> {
  const clouds = await writeClouds(running)
  const env = { OS_CLIENT_CONFIG_FILE: clouds, OS_CLOUD: 'devstack-admin' }
  // Its tests look for an image of this name to begin with.
  const create = ['image', 'create', '--public', '--disk-format', 'qcow2', '--container-format', 'bare']
  await output('/usr/bin/openstack', [...create, '--file', join(cache, 'images/boot.qcow2'), 'cirros-0.6'], env)
  return await run(running, venv, 'openstacksdk', {
    env,
    select: 'openstack/tests/functional/(image|cloud/test_image)',
  })
}

/** python-glanceclient's functional tests, with its own `glance` command. */
export async function glanceclient(running: Running, venv: string): Promise<Verdict> {
  const clouds = await writeClouds(running)
  const env = { OS_CLIENT_CONFIG_FILE: clouds, OS_GLANCECLIENT_EXEC_DIR: join(venv, 'bin') }
  return await run(running, venv, 'python-glanceclient', { env, select: 'glanceclient/tests/functional/' })
}

/** Seconds after which one test is cut. */
const TEST_TIMEOUT = '120'

/** Runs the test modules of an installed package whose path below site-packages fits `select`. */
async function run(
  { place }: Running,
  venv: string,
  name: string,
  { env, select }: { readonly env: NodeJS.ProcessEnv; readonly select: string },
): Promise<Verdict> {
  const python = join(venv, 'bin/python')
  const home = join(place.dir, name)
  await mkdir(home)
  // Stands for the file that openstacksdk's tests, run from its own checkout, upload as an image.
  await writeFile(join(home, 'CONTRIBUTING.rst'), 'Not an image.\n')
  const stream = join(home, 'run.subunit')
  const runner = join(home, 'run.py')
  await writeFile(runner, RUNNER)
  await show(place, python, [runner, select, stream], { cwd: home, env: { OS_TEST_TIMEOUT: TEST_TIMEOUT, ...env } })
  const results = join(home, 'results.json')
  await show(place, python, [join(kit, 'tempest_report.py'), stream, '--json', results])
  return judgeRun(name, await readReport(results), await readSkips([name]))
}

/** Runs the named modules, and writes what became of each test as a stream that the kit reads. */
const RUNNER = `import pathlib, re, subprocess, sys, sysconfig
select, stream = sys.argv[1:]
site = pathlib.Path(sysconfig.get_paths()['purelib'])
paths = (path.relative_to(site) for path in site.glob(select.split('/')[0] + '/**/test_*.py'))
modules = sorted('.'.join(path.with_suffix('').parts) for path in paths if re.match(select, path.as_posix()))
with open(stream, 'wb') as out:
    sys.exit(subprocess.run([sys.executable, '-m', 'subunit.run', *modules], stdout=out).returncode)
`

/** A clouds.yaml with the names that these suites expect, and ids of domains, as one of them insists on. */
async function writeClouds({ place }: Running): Promise<string> {
  const { auth_url, password, region } = await readJson<Record<'auth_url' | 'password' | 'region', string>>(
    join(place.keystone, 'identity.json'),
  )
  const cloud = (username: string, scope: Readonly<Record<string, string>>) => ({
    auth: { auth_url, username, password, user_domain_id: 'default', ...scope },
    region_name: region,
    image_api_version: '2',
  })
  const inProject = (name: string) => cloud(name, { project_name: name, project_domain_id: 'default' })
  const clouds = {
    'devstack-admin': inProject('admin'),
    'devstack-system-admin': cloud('admin', { system_scope: 'all' }),
    devstack: inProject('demo'),
    'devstack-alt': inProject('alt_demo'),
  }
  const file = join(place.dir, 'clouds.yaml')
  await writeFile(file, JSON.stringify({ clouds }, undefined, 2), { mode: 0o600 })
  return file
}
