import { constants } from 'node:fs'
import { open, rm } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { ServiceError } from '../domain/errors.ts'
import { rethrowFull } from './full.ts'
import type { Answer, HttpClient, Target } from './http-client.ts'
import type { Note } from './notes.ts'
import { openPieces, type Piece, type Pieces } from './pieces.ts'

export interface Download {
  readonly target: Target
  /** Takes the data; what an earlier attempt left in it is used if it can be. */
  readonly path: string
  /** Where the attempts of this download remember how far they got. */
  readonly note: Note<Remembered>
  /** Bytes that may come at most. */
  readonly limit: number
  /** Bytes that must come, where that is known beforehand. */
  readonly size?: number | undefined
  /** Told how many bytes have come, all attempts together. */
  readonly progress: (bytes: number) => void
  readonly signal: AbortSignal
}

export interface DownloadOptions {
  /** Failures in a row, with less than a MiB in between, after which a download is given up. */
  readonly retries: number
  /** Connections of one download. */
  readonly connections: number
  /** Before the first retry; doubled for each one more. */
  readonly pauseMs?: number
  /** Bytes that are worth another connection. */
  readonly worthDividing?: number
}

/** What tells data from other data at the same URL. */
interface Version {
  /** A strong ETag, or the date of the last change; undefined when the server cannot be asked for the rest of the data. */
  readonly validator: string | undefined
  /** Infinity while nobody knows. */
  readonly size: number
}
/** Written when all but `missing` is on the disk. */
export interface Remembered {
  readonly validator: string
  readonly size: number
  readonly missing: ReturnType<Pieces['missing']>
}

const PROGRESS = 1_048_576
const GATHERED = 1_048_576
const WORTH_DIVIDING = 8 * 1_048_576
const LONGEST_PAUSE_MS = 30_000
const REMEMBER_MS = 2000

/**
 * Downloads into a file, and resolves with the size once all is on the disk. Survives servers that stall, break off
 * and are slow, as far as they can send parts. Memory does not depend on the size. Throws what HttpClient throws,
 * `too-large` above the limit or when the disk is full, `invalid` for another size than expected.
 */
export async function download(client: HttpClient, work: Download, options: DownloadOptions): Promise<number> {
  const { signal } = work
  const { retries, connections, pauseMs = 1000, worthDividing = WORTH_DIVIDING } = options
  let file = await open(work.path, constants.O_RDWR | constants.O_CREAT, 0o600).catch(rethrowFull)
  /** Undefined until the first answer, and again when the data has changed. */
  let version: Version | undefined
  let pieces = openPieces(Number.POSITIVE_INFINITY, [], worthDividing)
  let source = work.target
  let parallel = connections > 1
  const helpers = new Set<Promise<void>>()
  let helping = new AbortController()

  const resume = async () => {
    const remembered = await work.note.read()
    if (remembered === undefined || (await file.stat()).size < writtenEnd(remembered)) return file.truncate(0)
    version = remembered
    pieces = openPieces(remembered.size, remembered.missing, worthDividing)
  }
  const remember = async () => {
    const now = version
    if (now?.validator === undefined || now.size === Number.POSITIVE_INFINITY) return
    const remembered = { validator: now.validator, size: now.size, missing: pieces.missing() }
    await file.datasync()
    if (version === now) await work.note.write(remembered)
  }
  /** Begins a new file rather than empty this one: whoever had this download before may not know yet that it is ours. */
  const startOver = async () => {
    version = undefined
    await dismiss()
    await remembering
    await work.note.remove()
    await file.close()
    await rm(work.path, { force: true })
    file = await open(work.path, 'wx+', 0o600).catch(rethrowFull)
    pieces = openPieces(Number.POSITIVE_INFINITY, [], worthDividing)
  }

  const write = async (piece: Piece, chunks: Buffer[]) => {
    while (chunks.length > 0) {
      const { bytesWritten } = await file.writev(chunks, piece.at).catch(rethrowFull)
      piece.at += bytesWritten
      dropBytes(chunks, bytesWritten)
    }
    work.progress(pieces.received())
  }
  const fill = async (piece: Piece, answer: Answer) => {
    const chunks: Buffer[] = []
    let gathered = 0
    try {
      for await (const chunk of client.read(answer)) {
        const part = chunk.subarray(0, piece.to - piece.got)
        piece.got += part.length
        gathered += part.length
        chunks.push(part)
        admit(pieces.received(), work)
        if (gathered < GATHERED && piece.got < piece.to) continue
        await write(piece, chunks)
        gathered = 0
        if (piece.got >= piece.to) return
      }
      if (piece.to === Number.POSITIVE_INFINITY) piece.to = piece.got
      if (piece.got < piece.to) throw endedEarly(answer)
    } finally {
      await write(piece, chunks)
    }
  }

  /** An answer that brings `piece`. Throws `changed` when the server has it no more. */
  const ask = async (piece: Piece, stop: AbortSignal): Promise<Answer> => {
    const headers = { range: `bytes=${piece.at}-${piece.to - 1}`, 'if-range': version?.validator ?? '' }
    const answer = await client.get(source, { headers, signal: stop }).catch((error: unknown) => {
      throw [412, 416].includes(Number(statusOf(error))) ? changed(error) : error
    })
    if (version !== undefined && isPart(answer, piece, version)) return answer
    client.discard(answer)
    throw changed()
  }
  const begin = async (): Promise<[Piece, Answer]> => {
    const answer = await client.get(source, { signal })
    version = versionOf(answer)
    const { size } = version
    parallel &&= version.validator !== undefined && /\bbytes\b/i.test(String(answer.headers['accept-ranges']))
    pieces = openPieces(size, [[0, size]], worthDividing)
    try {
      if (size !== Number.POSITIVE_INFINITY) admitSize(size, work)
    } catch (error) {
      client.discard(answer)
      throw error
    }
    return [pieces.take(false) ?? noBytes(), answer]
  }

  /** Fetches what nobody else does, until something fails: then it is up to the others. */
  const help = async (first: Piece) => {
    const stop = AbortSignal.any([signal, helping.signal])
    for (let piece: Piece | undefined = first; piece !== undefined; piece = pieces.take(parallel)) {
      try {
        await fill(piece, await ask(piece, stop))
      } catch (error) {
        parallel &&= !isChanged(error)
        return
      } finally {
        pieces.giveBack(piece)
      }
    }
  }
  const callHelp = () => {
    while (parallel && helpers.size < connections - 1) {
      const piece = pieces.take(true)
      if (piece === undefined) return
      const helper: Promise<void> = help(piece).finally(() => helpers.delete(helper))
      helpers.add(helper)
    }
  }
  const dismiss = async () => {
    helping.abort()
    await Promise.all(helpers)
    helping = new AbortController()
  }

  const fetchPiece = async (piece: Piece, asked: Promise<Answer>) => {
    try {
      const answer = await asked
      source = answer.target
      callHelp()
      await fill(piece, answer)
    } finally {
      pieces.giveBack(piece)
    }
  }
  /** One request after the other until nothing is missing, with helpers beside. */
  const fetchAll = async () => {
    if (version === undefined) {
      const [whole, answer] = await begin()
      await fetchPiece(whole, Promise.resolve(answer))
    }
    for (;;) {
      const piece = pieces.take(parallel)
      if (piece !== undefined) await fetchPiece(piece, ask(piece, signal))
      else if (helpers.size > 0) await Promise.race(helpers)
      else return
    }
  }

  const fetchStubbornly = async () => {
    let failures = 0
    let before = pieces.received()
    for (;;) {
      try {
        return await fetchAll()
      } catch (error) {
        signal.throwIfAborted()
        // The place that a redirect led to may be gone while the one that redirects is still there.
        const elsewhere = source !== work.target && statusOf(error) !== undefined
        const lost = isChanged(error) || version?.validator === undefined || version.size === Number.POSITIVE_INFINITY
        const gained = lost ? 0 : pieces.received() - before
        failures = gained >= PROGRESS ? 1 : failures + 1
        if (!(elsewhere || isTransient(error)) || failures > retries) {
          throw explained(error, pieces.received(), version?.size)
        }
        if (elsewhere) source = work.target
        if (isChanged(error)) parallel = false
        if (lost) await startOver()
        before = pieces.received()
        await delay(Math.min(pauseMs * 2 ** (failures - 1), LONGEST_PAUSE_MS), undefined, { signal }).catch(() =>
          signal.throwIfAborted(),
        )
      }
    }
  }

  let remembering = Promise.resolve()
  const timer = setInterval(() => {
    remembering = remembering.then(remember).catch(() => undefined)
  }, REMEMBER_MS)
  try {
    await resume()
    await fetchStubbornly()
    const { size } = await file.stat()
    admitSize(size, work)
    await file.sync().catch(rethrowFull)
    return size
  } finally {
    clearInterval(timer)
    await dismiss()
    await remembering
    // Who goes on after this process was told to stop need not fetch it all again.
    await remember().catch(() => undefined)
    await file.close()
  }
}

/** The byte behind the last that is in the file. */
function writtenEnd({ size, missing }: Remembered): number {
  const backwards = missing.toSorted((a, b) => b[0] - a[0])
  return backwards.reduce((end, [from, to]) => (to === end ? from : end), size)
}

function versionOf({ headers }: Answer): Version {
  const { etag, 'last-modified': modified, 'content-length': length, 'accept-ranges': ranges } = headers
  const strong = typeof etag === 'string' && etag.startsWith('"') ? etag : undefined
  const validator = strong ?? (typeof modified === 'string' ? modified : undefined)
  return {
    validator: ranges === 'none' ? undefined : validator,
    size: typeof length === 'string' && /^\d+$/.test(length) ? Number(length) : Number.POSITIVE_INFINITY,
  }
}

/** Whether the answer begins where the piece does, and is of the same data as the others. */
function isPart({ status, headers }: Answer, piece: Piece, { validator, size }: Version): boolean {
  const [, from, total] = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(String(headers['content-range'])) ?? []
  const { etag } = headers
  const same = etag === undefined || !validator?.startsWith('"') || etag === validator
  return status === 206 && same && Number(from) === piece.at && (total === '*' || Number(total) === size)
}

function dropBytes(chunks: Buffer[], count: number): void {
  let left = count
  for (let first = chunks[0]; first !== undefined && left >= first.length; first = chunks[0]) {
    left -= first.length
    chunks.shift()
  }
  if (chunks[0] !== undefined) chunks[0] = chunks[0].subarray(left)
}

const noBytes = (): Piece => ({ at: 0, got: 0, to: 0, reach: 0, busy: true })

// Errors

const changed = (cause?: unknown) =>
  new ServiceError('bad-gateway', 'The server sends other data than before', {
    cause,
    detail: { changed: true },
    transient: true,
  })
const isChanged = (error: unknown) => error instanceof ServiceError && error.detail['changed'] === true
const isTransient = (error: unknown) => error instanceof ServiceError && error.transient
const statusOf = (error: unknown) => (error instanceof ServiceError ? error.detail['status'] : undefined)

const endedEarly = ({ target }: Answer) =>
  new ServiceError('bad-gateway', `${target.url.host} ended the data early`, { transient: true })

function admit(bytes: number, { limit }: Download): void {
  if (bytes > limit) throw new ServiceError('too-large', `The data is larger than the ${limit} bytes that are allowed`)
}

/** Of all of it. */
function admitSize(size: number, work: Download): void {
  admit(size, work)
  if (work.size === undefined || size === work.size) return
  throw new ServiceError('invalid', `Downloaded data size ${size} is different from expected ${work.size}`)
}

/** Says how far the download got. */
function explained(error: unknown, got: number, size = Number.POSITIVE_INFINITY): unknown {
  if (!(error instanceof ServiceError) || got === 0) return error
  const { kind, message, detail, cause } = error
  const far = size === Number.POSITIVE_INFINITY ? `${got} bytes` : `${got} of ${size} bytes`
  return new ServiceError(kind, `${message}, after ${far}`, { cause, detail })
}
