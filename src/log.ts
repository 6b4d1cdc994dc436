import { format } from 'node:util'
import { destination } from 'pino'
import { ServiceError } from './domain/errors.ts'

export type Level = 'debug' | 'info' | 'warn' | 'error'

/** What a line says besides its message. */
export interface LogContext {
  readonly requestId?: string
  readonly userId?: string | undefined
  readonly projectId?: string | undefined
  /** Name of the logger, instead of the service's own. */
  readonly logger?: string
}

export interface Log {
  debug(message: string, error?: unknown): void
  info(message: string, error?: unknown): void
  warn(message: string, error?: unknown): void
  error(message: string, error?: unknown): void
  /** The same log, with every line saying whom it is about. */
  with(context: LogContext): Log
}

export interface LogOptions {
  /** Logger name in each line, such as `glance.api`. */
  readonly name: string
  readonly debug: boolean
  /** One JSON object a line instead of text. */
  readonly json: boolean
  /** Standard error when absent. */
  readonly file?: string | undefined
}

const WORDS = { debug: 'DEBUG', info: 'INFO', warn: 'WARNING', error: 'ERROR' } as const satisfies Record<Level, string>
const FLUSH_MS = 100

/**
 * Lines in oslo.log's default format (`logging_context_format_string`), since operators' filters know it:
 * time, process, level, logger, [request user project - - -], message. Writes are gathered and do not block.
 */
export const openLog = (options: LogOptions): Log & { flush(): void } => {
  const sink = destination({ dest: options.file ?? 2, sync: false, minLength: 8192, append: true, mkdir: true })
  sink.on('error', () => undefined) // a log that cannot be written must not end the service
  const flush = () => {
    try {
      sink.flushSync()
    } catch {
      // not open yet, or the disk is full: the lines stay queued
    }
  }
  setInterval(() => sink.flush(), FLUSH_MS).unref()

  const text = (level: Level, message: string, { requestId, userId, projectId, logger }: LogContext) => {
    const time = new Date().toISOString().replace('T', ' ').slice(0, 23)
    const who = requestId === undefined ? '-' : `${requestId} ${userId ?? '-'} ${projectId ?? '-'} - - -`
    return `${time} ${process.pid} ${WORDS[level]} ${logger ?? options.name} [${who}] ${message}\n`
  }
  const json = (level: Level, message: string, { requestId, userId, projectId, logger }: LogContext) =>
    `${JSON.stringify({
      asctime: new Date().toISOString().replace('T', ' ').slice(0, 23),
      levelname: WORDS[level],
      name: logger ?? options.name,
      process: process.pid,
      message,
      context: { request_id: requestId, user_id: userId, project_id: projectId },
    })}\n`
  const render = options.json ? json : text

  const at = (context: LogContext): Log => {
    const write = (level: Level) => (message: string, error?: unknown) => {
      // A client's words must not begin a line of their own.
      const clean = message.replace(/[\r\n]+/g, ' ')
      sink.write(
        render(level, error === undefined ? clean : `${clean}: ${describeError(error, options.debug)}`, context),
      )
    }
    return {
      debug: options.debug ? write('debug') : () => undefined,
      info: write('info'),
      warn: write('warn'),
      error: write('error'),
      with: (more) => at({ ...context, ...more }),
    }
  }
  return { ...at({}), flush }
}

const describeError = (error: unknown, debug: boolean): string => {
  if (!(error instanceof Error)) return format('%s', error)
  // Errors of libraries may have a `detail` of their own, and it may be anything.
  const detail =
    error instanceof ServiceError && Object.keys(error.detail).length > 0 ? ` ${JSON.stringify(error.detail)}` : ''
  const known = 'kind' in error && error.kind !== 'internal'
  const first = known && !debug ? error.message : (error.stack ?? error.message)
  const cause = error.cause === undefined ? '' : ` <- ${describeError(error.cause, debug)}`
  return `${first}${detail}${cause}`
}

export const silentLog: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  with: () => silentLog,
}
