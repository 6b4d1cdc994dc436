import { gzipSync } from 'node:zlib'
import { until } from '../support/product.ts'
import type { TestConfig } from '../support/server.ts'
import { be32, be64, createType, MIB, noise, qcow2, zeros } from './build.ts'
import { lha, zip } from './pack.ts'

/** Bytes that an image may have on the servers that are asked. */
const LIMIT = MIB

/** Servers that take imported images out of archives. */
export const CONFIG: TestConfig = {
  DEFAULT: { enabled_import_methods: '[glance-direct]', image_size_cap: String(LIMIT) },
  image_import_opts: { image_import_plugins: '[image_decompression]' },
}

/** Staged data, and what must become of its import: the size of the image, or nothing. */
export interface Archive {
  readonly name: string
  readonly data: Buffer
  /** `disk_format` of the image. */
  readonly declared: string
  readonly size: number | undefined
  /** Why the real Glance makes something else of it. */
  readonly differs?: string
}

const good = (name: string, data: Buffer, size: number, differs?: string): Archive => ({
  ...{ name, data, size, declared: 'raw' },
  ...(differs === undefined ? {} : { differs }),
})
const bad = (name: string, data: Buffer, differs?: string, declared = 'raw'): Archive => ({
  ...{ name, data, declared, size: undefined },
  ...(differs === undefined ? {} : { differs }),
})

/** A small file that becomes a large one. */
const BOMB = zeros(16 * MIB)
const IMAGE = noise(100_000)
const BACKED = qcow2({ 8: be64(512), 16: be32(11), 512: '/etc/passwd' })

/** Their names are unique. */
export const archives = (): readonly Archive[] => [
  good('gzip', gzipSync(IMAGE), IMAGE.length),
  good('gzip of two members', Buffer.concat([gzipSync(IMAGE), gzipSync(IMAGE)]), 2 * IMAGE.length),
  good('gzip with zeros behind', Buffer.concat([gzipSync(IMAGE), zeros(512)]), IMAGE.length),
  good('gzip of all that is allowed', gzipSync(zeros(LIMIT)), LIMIT),
  bad('gzip of a byte more', gzipSync(zeros(LIMIT + 1))),
  bad('gzip bomb', gzipSync(BOMB)),
  bad('gzip bomb in many members', Buffer.concat(Array.from({ length: 32 }, () => gzipSync(zeros(MIB / 2))))),
  good('gzip bomb in gzip', gzipSync(gzipSync(BOMB)), gzipSync(BOMB).length),
  bad('gzip cut', gzipSync(IMAGE).subarray(0, -1000)),
  bad('gzip with noise behind', Buffer.concat([gzipSync(IMAGE), noise(512)])),
  bad('gzip of another checksum', Buffer.concat([gzipSync(IMAGE).subarray(0, -8), noise(8)])),
  bad('gzip of a qcow2 with a backing file', gzipSync(BACKED), undefined, 'qcow2'),
  bad('gzip of a qcow2 that is declared raw', gzipSync(BACKED)),
  bad('gzip of a vmdk descriptor', gzipSync(Buffer.from(createType('monolithicFlat').join('\n'))), undefined, 'vmdk'),
  good('zip', zip([{ name: 'disk', data: IMAGE }]), IMAGE.length),
  bad('zip bomb', zip([{ name: 'disk', data: BOMB }])),
  bad('zip bomb that says it is small', zip([{ name: 'disk', data: BOMB, said: 10 }])),
  bad(
    'zip that says it is large',
    zip([{ name: 'disk', data: IMAGE, said: 0xffff_fff0 }]),
    'sizes that archives state are not looked at there',
  ),
  bad('zip of two members', zip(['a', 'b'].map((name) => ({ name, data: IMAGE })))),
  bad('zip of a folder', zip([{ name: 'a/', data: zeros(0) }])),
  bad('zip of a path upwards', zip([{ name: '../../disk', data: IMAGE }]), 'written below the staging area there'),
  bad('zip of an absolute path', zip([{ name: '/tmp/disk', data: IMAGE }]), 'written below the staging area there'),
  bad('zip with a lock', zip([{ name: 'disk', data: IMAGE, flags: 1 }])),
  bad('zip of another checksum', zip([{ name: 'disk', data: IMAGE }], { crc: () => 1 })),
  bad('zip cut', zip([{ name: 'disk', data: IMAGE }]).subarray(0, -30)),
  bad('zip of a qcow2 with a backing file', zip([{ name: 'disk', data: BACKED }]), undefined, 'qcow2'),
  good('lha', lha({ disk: IMAGE }), IMAGE.length, 'its package for LHA is missing there'),
  bad('lha of two members', lha({ one: IMAGE, two: IMAGE })),
]

/** `TASK IMAGE SIZE`, as `success active 100000`. */
export type Outcome = string

/** Of a failure no more than that: what it leaves of the image is another matter. */
export const verdictOf = (outcome: Outcome): string => (outcome.startsWith('failure') ? 'failure' : outcome)

export const expectedOutcome = ({ size }: Archive): Outcome =>
  size === undefined ? 'failure queued -' : `success active ${size}`

/** Stages each archive and imports it, one after the other; calls `after` when nothing is staged any more. */
export async function importAll(
  baseUrl: string,
  identity: Readonly<Record<string, string>>,
  samples: readonly Archive[],
  after: () => Promise<void> = async () => undefined,
): Promise<ReadonlyMap<string, Outcome>> {
  const outcomes = new Map<string, Outcome>()
  for (const sample of samples) {
    outcomes.set(sample.name, await importOne(baseUrl, identity, sample))
    await after()
  }
  return outcomes
}

async function importOne(
  baseUrl: string,
  identity: Readonly<Record<string, string>>,
  { name, data, declared }: Archive,
): Promise<Outcome> {
  const send = async (method: string, path: string, body?: object | Buffer) => {
    const isData = body instanceof Buffer
    const type = isData ? 'application/octet-stream' : 'application/json'
    const answer = await fetch(`${baseUrl}/v2/images${path}`, {
      method,
      headers: { ...identity, 'Content-Type': type },
      ...(body === undefined ? {} : { body: isData ? new Uint8Array(body) : JSON.stringify(body) }),
    })
    const text = await answer.text()
    if (!answer.ok) throw new Error(`${name}: ${method} ${path}: ${answer.status} ${text}`)
    return text === '' ? {} : (JSON.parse(text) as Record<string, unknown>)
  }
  const { id } = await send('POST', '', { disk_format: declared, container_format: 'bare' })
  await send('PUT', `/${id}/stage`, data)
  await send('POST', `/${id}/import`, { method: { name: 'glance-direct' } })
  let task = ''
  await until(`the end of the import of ${name}`, async () => {
    const { tasks } = (await send('GET', `/${id}/tasks`)) as { tasks: readonly { status: string }[] }
    task = tasks[0]?.status ?? ''
    return ['success', 'failure'].includes(task)
  })
  const image = await send('GET', `/${id}`)
  return `${task} ${image['status']} ${image['size'] ?? '-'}`
}

/** One line for each archive. */
export const printOutcomes = (about: string, outcomes: ReadonlyMap<string, Outcome>): string =>
  [`# ${about}`, ...[...outcomes].map(([name, outcome]) => `${name}: ${outcome}`)].join('\n').concat('\n')

export const parseOutcomes = (text: string): ReadonlyMap<string, Outcome> =>
  new Map(
    text
      .trimEnd()
      .split('\n')
      .slice(1)
      .map((line) => line.split(': ') as [string, Outcome]),
  )
