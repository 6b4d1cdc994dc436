import { createReadStream } from 'node:fs'
import { GROUPS } from '../../config/groups.ts'
import { ServiceError } from '../../domain/errors.ts'
import { type FormatName, identify, inspector, type SafetyOptions } from '../../io/inspect.ts'
import { noRoom } from '../full.ts'
import type { ImportJob } from '../import.ts'
import { type Ended, type ProcessLimits, runLimited } from '../limited-process.ts'
import { definePlugin, type PluginTools } from '../plugin.ts'
import { type Transformation, type Transformed, transformStep } from '../transform.ts'

const NAME = 'image_conversion'

/** Makes every image one of the same format, with qemu-img. Discs (iso) stay as they are. */
export const conversion = definePlugin({
  name: NAME,
  group: NAME,
  options: GROUPS.image_conversion,
  open: ({ output_format: target }, tools) => ({
    name: NAME,
    step: (job) => transformStep(job, NAME, (work) => convert(work, job, target, tools)),
  }),
})

const refused = (message: string) => new ServiceError('unsupported-media-type', message)

async function convert(
  work: Transformation,
  job: ImportJob,
  target: 'qcow2' | 'raw' | 'vmdk',
  tools: PluginTools,
): Promise<Transformed | undefined> {
  const { from, to, signal } = work
  const source = job.image().diskFormat ?? 'raw'
  // No program sees data of a stranger before our own inspector has.
  const found = await formatOf(from, source, tools.formats, signal)
  if (found !== source) throw refused(`Image disk_format ${source} does not match its data, which is ${found}`)
  if (found === 'iso') return undefined
  const virtualSize = await secondOpinion(work, found, tools)
  if (found === target) {
    await job.save({ virtualSize })
    return undefined
  }
  if (virtualSize > job.sizeLimit && target === 'raw') {
    throw new ServiceError('too-large', `The image would be larger than the ${job.sizeLimit} bytes that are allowed`)
  }
  const convertLimits = { ...CONVERT_LIMITS, cpuSeconds: tools.programSeconds, wallSeconds: tools.programSeconds }
  await qemuImg(['convert', '-f', qemuName(found), '-O', target, from, to], work, {
    ...convertLimits,
    fileSize: job.sizeLimit,
  })
  const made = await formatOf(to, target, tools.formats, signal)
  if (made !== target) throw refused(`The converted image is ${made}, not ${target}`)
  return { diskFormat: target, containerFormat: 'bare', virtualSize }
}

/** The format of a file, checked for what makes it unsafe. */
async function formatOf(
  path: string,
  declared: string,
  formats: SafetyOptions,
  signal: AbortSignal,
): Promise<FormatName> {
  const { update, end } = inspector()
  for await (const chunk of createReadStream(path, { highWaterMark: 1_048_576, signal })) update(chunk as Buffer)
  return identify(end(), declared, formats)
}

/** What `qemu-img info` prints, as far as it matters. */
interface Info {
  readonly format?: string
  readonly 'virtual-size'?: number
  readonly 'backing-filename'?: string
  readonly 'format-specific'?: { readonly data?: { readonly 'data-file'?: string; readonly 'create-type'?: string } }
}

/** What qemu-img makes of the file has to be what we made of it. Gives the virtual size. */
async function secondOpinion(work: Transformation, format: FormatName, tools: PluginTools): Promise<number> {
  const name = qemuName(format)
  const { stdout } = await qemuImg(['info', '-f', name, '--output=json', work.from], work, INFO_LIMITS)
  const info = JSON.parse(stdout) as Info
  if (info.format !== name) throw refused('Image metadata disagrees about format')
  if (info['backing-filename'] !== undefined) throw refused('QCOW images with backing files are not allowed')
  const { 'data-file': dataFile, 'create-type': createType } = info['format-specific']?.data ?? {}
  if (dataFile !== undefined) throw refused('QCOW images with data-file set are not allowed')
  if (format === 'vmdk' && !(createType !== undefined && tools.formats.vmdkAllowedTypes.includes(createType))) {
    throw refused('Invalid VMDK create-type specified')
  }
  return info['virtual-size'] ?? 0
}

/** As upstream: crafted images make qemu-img calculate for ever (Launchpad bug 1449062). */
const INFO_LIMITS: ProcessLimits = { cpuSeconds: 2, memory: 1_073_741_824, fileSize: 0, wallSeconds: 60 }
/** The stacks of its I/O threads alone may reserve half a GiB of addresses, of which little is ever used. */
const CONVERT_LIMITS = { memory: 4_294_967_296 }

const qemuName = (format: FormatName): string => (format === 'vhd' ? 'vpc' : format)

async function qemuImg(args: readonly string[], work: Transformation, limits: ProcessLimits): Promise<Ended> {
  const ended = await runLimited('qemu-img', args, { ...limits, signal: work.signal })
  if (ended.code === 0 && ended.stderr === '') return ended
  if (/No space left on device|Disk quota exceeded/.test(ended.stderr)) throw noRoom()
  const [line = ''] = ended.stderr.split('\n')
  // Where files are on this machine is nobody's business.
  const said = line.replaceAll(work.to, 'the new image').replaceAll(work.from, 'the image').slice(0, 300)
  const why = ended.killedBy === null ? said : `it was ended by ${ended.killedBy}, which is how its limits end it`
  throw new ServiceError('invalid', `qemu-img ${args[0]} failed: ${why || `code ${ended.code}`}`)
}
