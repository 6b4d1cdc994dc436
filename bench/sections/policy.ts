import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { type Identity, NOBODY } from '../../src/auth/identity.ts'
import type { ImageId, ProjectId, UserId } from '../../src/domain/ids.ts'
import type { Image, Visibility } from '../../src/domain/image.ts'
import { openPolicy, type Target } from '../../src/policy/enforcer.ts'
import type { RuleName } from '../../src/policy/rules.ts'
import { imageTarget } from '../../src/policy/target.ts'
import type { Bench, Measured } from '../bench.ts'
import type { Row } from '../report.ts'

const run = promisify(execFile)
const CHECKS = fileURLToPath(new URL('../policy-checks.py', import.meta.url))
const SECONDS = 2

interface Case {
  readonly rule: RuleName
  readonly identity: Identity
  readonly target: Target
}
interface Answer {
  /** Checks per second of CPU. */
  readonly rate: number
  readonly allowed: readonly boolean[]
}

/** The rules alone, without a server: the same callers ask the same rules about the same images. */
export async function policy(_: Bench): Promise<Measured> {
  const cases = everyCase()
  const rows: Row[] = []
  const notes: string[] = []
  for (const newDefaults of [true, false]) {
    const what = `policy checks, ${newDefaults ? 'new defaults' : 'new and old defaults'}`
    const [glance, glimpse]: [number[], number[]] = [[], []]
    for (let round = 0; round < 3; round += 1) {
      const [theirs, ours] = [await askOslo(cases, newDefaults), askOurs(cases, newDefaults)]
      glance.push(theirs.rate)
      glimpse.push(ours.rate)
      const differ = cases.filter((_, i) => theirs.allowed[i] !== ours.allowed[i]).map(({ rule }) => rule)
      if (round === 0 && differ.length > 0)
        notes.push(
          `${what}: ${differ.length} of ${cases.length} are decided otherwise: ${[...new Set(differ)].join(', ')}`,
        )
    }
    rows.push({ what, unit: 'per second of CPU', lessIsBetter: false, glance, glimpse })
  }
  return { rows, notes }
}

function askOurs(cases: readonly Case[], newDefaults: boolean): Answer {
  const enforcer = openPolicy({
    policyFile: 'none.yaml',
    policyDirs: [],
    defaultRule: 'default',
    enforceNewDefaults: newDefaults,
    enforceScope: newDefaults,
    warn: (message) => console.error(message),
  })
  const once = (): boolean[] => cases.map(({ rule, identity, target }) => enforcer.allows(rule, identity, target))
  const allowed = once()
  const began = process.cpuUsage()
  const used = (): number => {
    const { user, system } = process.cpuUsage(began)
    return (user + system) / 1e6
  }
  let checks = 0
  for (; used() < SECONDS; checks += 100 * cases.length) for (let n = 0; n < 100; n += 1) once()
  const rate = checks / used()
  enforcer.close()
  return { rate, allowed }
}

async function askOslo(cases: readonly Case[], newDefaults: boolean): Promise<Answer> {
  const job = {
    cases: cases.map(({ rule, identity, target }) => ({
      rule,
      target,
      credentials: { user_id: identity.userId, project_id: identity.projectId, roles: identity.roles },
    })),
    newDefaults,
    seconds: SECONDS,
  }
  const env = { PATH: '/usr/bin:/bin', LC_ALL: 'C.UTF-8' }
  const asking = run('/usr/bin/python3', [CHECKS], { env })
  asking.child.stdin?.end(JSON.stringify(job))
  return JSON.parse((await asking).stdout) as Answer
}

function everyCase(): readonly Case[] {
  const rules: readonly RuleName[] = [
    'get_image',
    'get_images',
    'modify_image',
    'download_image',
    'upload_image',
    'delete_image',
    'get_members',
    'publicize_image',
  ]
  const callers = [caller('p1', 'member', 'reader'), caller('p1', 'reader'), caller('admin', 'admin', 'member')]
  const images = (['private', 'shared', 'public'] as const).flatMap((visibility) =>
    ['p1', 'p2'].map((owner) => image(owner, visibility)),
  )
  return rules.flatMap((rule) =>
    callers.flatMap((identity) => images.map((one) => ({ rule, identity, target: imageTarget(one, identity) }))),
  )
}

const caller = (project: string, ...roles: readonly string[]): Identity => ({
  ...NOBODY,
  userId: 'user' as UserId,
  projectId: project as ProjectId,
  roles,
})

const image = (owner: string, visibility: Visibility): Image => ({
  id: '5c0ab7e5-9d9b-4b2b-9d3c-2b5f3a4f9d11' as ImageId,
  name: 'image',
  owner: owner as ProjectId,
  visibility,
  status: 'active',
  protected: false,
  hidden: false,
  size: 1_048_576,
  virtualSize: 2_097_152,
  minRam: 512,
  minDisk: 10,
  diskFormat: 'qcow2',
  containerFormat: 'bare',
  checksum: 'd41d8cd98f00b204e9800998ecf8427e',
  osHashAlgo: 'sha512',
  osHashValue: 'cf83e1357eefb8bd',
  createdAt: new Date(0),
  updatedAt: new Date(0),
  tags: ['tag'],
  properties: new Map([['os_distro', 'debian']]),
  locations: [],
})
