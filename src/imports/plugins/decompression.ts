import { createReadStream, createWriteStream } from 'node:fs'
import { open } from 'node:fs/promises'
import { type Readable, Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { crc32, createGunzip } from 'node:zlib'
import { type Entry, openPromise } from 'yauzl'
import { ServiceError } from '../../domain/errors.ts'
import { rethrowFull } from '../full.ts'
import type { ImportJob } from '../import.ts'
import { runLimited } from '../limited-process.ts'
import { definePlugin, type PluginTools } from '../plugin.ts'
import { type Transformation, transformStep } from '../transform.ts'

const NAME = 'image_decompression'

/** Takes images out of gzip, zip and LHA files, by what the data begin with. */
export const decompression = definePlugin({
  name: NAME,
  group: NAME,
  options: {},
  open: (_, tools) => ({
    name: NAME,
    step: (job) =>
      transformStep(job, NAME, async (work) => {
        // Of such an image it is the compressed data that is wanted.
        if (job.image().containerFormat === 'compressed') return undefined
        const decompress = decompressorOf(await head(work.from))
        if (decompress === undefined) return undefined
        await decompress(work, job, tools)
        return {}
      }),
  }),
})

type Decompress = (work: Transformation, job: ImportJob, tools: PluginTools) => Promise<void>

function decompressorOf(bytes: Buffer): Decompress | undefined {
  if (bytes.toString('latin1', 0, 4) === 'PK\x03\x04') return unzip
  if (bytes.toString('latin1', 2, 5) === '-lh') return unpackLha
  if (bytes.toString('latin1', 0, 3) === '\x1f\x8b\x08') return gunzip
  return undefined
}

async function head(path: string): Promise<Buffer> {
  const file = await open(path)
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(5), 0, 5, 0)
    return buffer.subarray(0, bytesRead)
  } finally {
    await file.close()
  }
}

const damaged = (what: string, cause?: unknown) => new ServiceError('invalid', `The ${what} data is damaged`, { cause })

async function gunzip({ from, to, signal }: Transformation, job: ImportJob): Promise<void> {
  const packed = createReadStream(from, { highWaterMark: 1_048_576 })
  try {
    await pipeline(packed, createGunzip({ chunkSize: 262_144 }), bounded(job), createWriteStream(to, { flags: 'wx' }), {
      signal,
    })
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException
    throw code.startsWith('Z_') || code === 'ERR_TRAILING_JUNK_AFTER_STREAM_END' ? damaged('gzip', error) : full(error)
  }
}

async function unzip({ from, to, signal }: Transformation, job: ImportJob): Promise<void> {
  const archive = await openPromise(from, { autoClose: false, lazyEntries: true }).catch((error: unknown) => {
    throw damaged('zip', error)
  })
  try {
    if (archive.entryCount !== 1) throw new ServiceError('invalid', 'Archive contains more than one file.')
    const entries: Entry[] = []
    for await (const entry of archive.eachEntry()) entries.push(entry)
    const [entry] = entries
    if (entry === undefined || entry.fileName.endsWith('/'))
      throw new ServiceError('invalid', 'Archive contains no file.')
    if (!entry.canDecodeFileData()) {
      throw new ServiceError('invalid', 'The zip data is encrypted, or compressed in an unknown way')
    }
    admitSize(entry.uncompressedSize, job)
    const checksum = checksummed()
    const bytes = await archive.openReadStreamPromise(entry)
    await pipeline(bytes, bounded(job), checksum, createWriteStream(to, { flags: 'wx' }), { signal })
    if (checksum.value() !== entry.crc32) throw damaged('zip')
  } catch (error) {
    throw error instanceof ServiceError || (error as NodeJS.ErrnoException).syscall !== undefined
      ? full(error)
      : damaged('zip', error)
  } finally {
    archive.close()
  }
}

/** With lhasa's or another `lha`, where one is installed. */
async function unpackLha({ from, to, signal }: Transformation, job: ImportJob, tools: PluginTools): Promise<void> {
  const limits = {
    cpuSeconds: tools.programSeconds,
    wallSeconds: tools.programSeconds,
    memory: 268_435_456,
    fileSize: job.sizeLimit,
    signal,
  }
  const listed = await runLimited('lha', ['lq', from], limits)
  const members = listed.stdout.split('\n').filter((line) => line.trim() !== '')
  if (listed.code !== 0 || members.length === 0) throw damaged('LHA')
  if (members.length !== 1) throw new ServiceError('invalid', 'Archive contains more than one file.')
  const output = (bytes: Readable) => pipeline(bytes, bounded(job), createWriteStream(to, { flags: 'wx' }), { signal })
  const { code } = await runLimited('lha', ['pq', from], { ...limits, output: (bytes) => output(bytes).catch(full) })
  if (code !== 0) throw damaged('LHA')
}

function admitSize(size: number, { sizeLimit }: ImportJob): void {
  if (size <= sizeLimit) return
  throw new ServiceError('too-large', `The decompressed data is larger than the ${sizeLimit} bytes that are allowed`)
}

/** Lets pass what is allowed: a small file may become a very large one. */
function bounded(job: ImportJob): Transform {
  let size = 0
  return new Transform({
    transform: (chunk: Buffer, _, done) => {
      size += chunk.length
      try {
        admitSize(size, job)
        job.progress(size)
        done(null, chunk)
      } catch (error) {
        done(error as Error)
      }
    },
  })
}

function checksummed(): Transform & { value(): number } {
  let sum = 0
  const stream = new Transform({
    transform: (chunk: Buffer, _, done) => {
      sum = crc32(chunk, sum)
      done(null, chunk)
    },
  })
  return Object.assign(stream, { value: () => sum })
}

function full(error: unknown): never {
  if (error instanceof ServiceError) throw error
  return rethrowFull(error as NodeJS.ErrnoException)
}
