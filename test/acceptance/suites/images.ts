import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { freePort, startProduct } from '../../support/product.ts'
import { output, script } from '../kit.ts'
import type { Verdict } from '../verdict.ts'

const IMAGES = [
  { format: 'raw', file: 'boot.raw', qemu: 'raw' },
  { format: 'qcow2', file: 'boot.qcow2', qemu: 'qcow2' },
  { format: 'vmdk', file: 'boot.vmdk', qemu: 'vmdk' },
  { format: 'vhd', file: 'boot.vhd', qemu: 'vpc' },
  { format: 'vhdx', file: 'boot.vhdx', qemu: 'vhdx' },
  { format: 'vdi', file: 'boot.vdi', qemu: 'vdi' },
  { format: 'iso', file: 'boot.iso', qemu: 'raw' },
]

/** On the service of day one: no configuration, the identity and the clouds.yaml that it made itself. */
export async function imagesOfDayOne(dir: string): Promise<Verdict> {
  await mkdir(dir)
  const data = join(dir, 'data')
  const port = await freePort()
  const product = await startProduct({
    command: 'glimpse',
    args: ['--data', data, '--port', String(port)],
    port,
    log: join(dir, 'glimpse.log'),
  })
  try {
    return await compareImages({ name: 'images', dir }, join(data, 'clouds.yaml'), 'glimpse')
  } finally {
    await product.stop()
  }
}

/**
 * Each format goes up and comes back the same, and the service's account of it is that of qemu-img. The images are the
 * kit's as it makes them: the disk is a disc as well, as those of distributions often are.
 */
export async function compareImages(
  place: { readonly name: string; readonly dir: string },
  clouds: string,
  cloud: string,
): Promise<Verdict> {
  const { dir } = place
  const images = join(dir, 'made')
  await script(place, 'make-images.sh', [images])
  const problems: string[] = []
  for (const { format, file, qemu } of IMAGES) {
    const found = await compareImage(join(images, file), { format, qemu, dir, clouds, cloud }).catch(
      (error: unknown) => [String(error)],
    )
    console.log(`[images] ${found.length === 0 ? 'ok   ' : 'FAIL '} ${format}`)
    problems.push(...found.map((text) => `${format}: ${text}`))
  }
  const failed = new Set(problems.map((text) => text.slice(0, text.indexOf(':'))))
  return { title: 'real formats', passed: IMAGES.length - failed.size, problems, skipped: [] }
}
interface Comparison {
  readonly format: string
  /** What qemu-img calls the format. */
  readonly qemu: string
  readonly dir: string
  readonly clouds: string
  readonly cloud: string
}

/** Uploads `file`, downloads it again, and says how the service's account of it differs from the truth. */
async function compareImage(
  file: string,
  { format, qemu, dir, clouds, cloud }: Comparison,
): Promise<readonly string[]> {
  const openstack = (...args: readonly string[]) =>
    output('/usr/bin/openstack', ['--os-cloud', cloud, 'image', ...args], { OS_CLIENT_CONFIG_FILE: clouds })
  const info = JSON.parse(await output('qemu-img', ['info', '--output=json', file])) as Record<string, unknown>
  const created = JSON.parse(
    await openstack(
      'create',
      '-f',
      'json',
      '--disk-format',
      format,
      '--container-format',
      'bare',
      '--file',
      file,
      format,
    ),
  ) as { id: string }
  const shown = JSON.parse(await openstack('show', '-f', 'json', created.id)) as Record<string, unknown>
  const properties = shown['properties'] as Record<string, unknown>
  const back = join(dir, `back.${format}`)
  await openstack('save', '--file', back, created.id)
  const sha512 = await digest('sha512', file)
  const compare = (what: string, found: unknown, wanted: unknown) =>
    found === wanted ? [] : [`${what} is ${String(found)}, not ${String(wanted)}`]
  const problems = [
    ...compare('status', shown['status'], 'active'),
    ...compare('disk_format', shown['disk_format'], format),
    ...compare('the format that qemu-img sees', info['format'], qemu),
    ...compare('virtual_size', shown['virtual_size'] ?? properties['virtual_size'], info['virtual-size']),
    ...compare('size', shown['size'], (await stat(file)).size),
    ...compare('checksum', shown['checksum'], await digest('md5', file)),
    ...compare('os_hash_value', properties['os_hash_value'], sha512),
    ...compare('sha512 of the download', await digest('sha512', back), sha512),
  ]
  await rm(back)
  return problems
}

async function digest(algorithm: string, file: string): Promise<string> {
  const hash = createHash(algorithm)
  await pipeline(createReadStream(file), hash)
  return hash.digest('hex')
}
