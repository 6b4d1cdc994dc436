import { exceptionOf, type RowDatabase, Timestamp } from '../../db/rows.ts'
import { ServiceError } from '../../domain/errors.ts'
import type { Route } from '../http/route.ts'
import { type HistoricContext, requireWriter } from './context.ts'

interface Command {
  readonly command: string
  readonly kwargs: Readonly<Record<string, unknown>>
}

/** Remote procedure calls (glance/common/rpc.py): commands of Glance's database drivers, several in one request. */
export function rpcRoutes(rows: RowDatabase, modules: readonly string[]): readonly Route<HistoricContext>[] {
  return [
    {
      method: 'POST',
      path: '/rpc',
      handle: async (request) => {
        requireWriter(request.context)
        const commands = readCommands(rows, await request.json())
        const results: unknown[] = []
        for (const { command, kwargs } of commands) {
          const result = rows.run(command, request.context.rows, kwargs)
          results.push(await result.then(toPrimitive, (error: unknown) => toError(error, modules)))
        }
        return { status: 200, json: results }
      },
    },
  ]
}

/** Their answers are in memory together, each of up to a page of images. Glance's client asks one at a time. */
const MOST_COMMANDS = 100

function readCommands(rows: RowDatabase, body: unknown): readonly Command[] {
  if (!Array.isArray(body)) throw new ServiceError('invalid', 'Request must be a list of commands')
  if (body.length > MOST_COMMANDS)
    throw new ServiceError('too-large', `A request has at most ${MOST_COMMANDS} commands, not ${body.length}`)
  return body.map((one: unknown) => {
    if (typeof one !== 'object' || one === null || Array.isArray(one))
      throw new ServiceError('invalid', `Bad Command: ${JSON.stringify(one)}`)
    const { command, kwargs } = one as { readonly command?: unknown; readonly kwargs?: unknown }
    const isEmpty = !kwargs || (Array.isArray(kwargs) && kwargs.length === 0)
    const isDict = typeof kwargs === 'object' && kwargs !== null && !Array.isArray(kwargs)
    if (typeof command !== 'string' || command === '' || (!isEmpty && !isDict))
      throw new ServiceError('invalid', `Wrong command structure: ${JSON.stringify(one)}`)
    if (!rows.has(command)) throw new ServiceError('not-found', 'Command not found')
    return { command, kwargs: isDict ? (fromPrimitive(kwargs) as Command['kwargs']) : {} }
  })
}

/** Times are `{"_type": "datetime", "_value": "2020-01-31T…"}`; other types that are said mean nothing. */
function fromPrimitive(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(fromPrimitive)
  if (typeof value !== 'object' || value === null) return value
  const { _type, _value } = value as { readonly _type?: unknown; readonly _value?: unknown }
  if (_type === 'datetime') return readTime(_value)
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, fromPrimitive(member)]))
}

const TIME = /^(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d(?::?\d\d)?)?$/i

/** Without a zone it is UTC; all of its fraction is kept. Throws `invalid`. */
function readTime(value: unknown): Timestamp {
  const [, day, time, fraction = '', zone = 'Z'] = TIME.exec(typeof value === 'string' ? value : '') ?? []
  const seconds = new Date(`${day}T${time}${/^[+-]\d\d$/.test(zone) ? `${zone}:00` : zone.toUpperCase()}`)
  if (Number.isNaN(seconds.getTime())) throw new ServiceError('invalid', 'Malformed JSON in request body.')
  return new Timestamp(seconds.toISOString().slice(0, 19) + fraction)
}

function toPrimitive(value: unknown): unknown {
  if (value instanceof Timestamp) return { _type: 'datetime', _value: value.iso }
  if (Array.isArray(value)) return value.map(toPrimitive)
  if (typeof value !== 'object' || value === null) return value ?? null
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, toPrimitive(member)]))
}

const GLANCE = 'glance.common.exception'

/** Errors of modules that are not allowed out go as text in an `RPCError`. */
function toError(error: unknown, modules: readonly string[]): unknown {
  const [module, name, message] = pythonName(error)
  if (module !== undefined && modules.includes(module)) return failed(`${module}.${name}`, message)
  const cls = module === undefined ? name : `${module}.${name}`
  return failed(`${GLANCE}.RPCError`, `${cls} exception was raised in the last rpc call: ${message}`)
}

const failed = (cls: string, val: string): unknown => ({ _error: { cls, val } })

function pythonName(error: unknown): readonly [module: string | undefined, name: string, message: string] {
  if (!(error instanceof ServiceError)) return [undefined, 'InternalError', 'The registry failed']
  if (error.detail['exception'] === 'TypeError') return ['builtins', 'TypeError', error.message]
  const exception = exceptionOf(error)
  return exception === undefined
    ? [undefined, error.kind === 'unavailable' ? 'DBConnectionError' : 'DBError', error.message]
    : [GLANCE, exception, error.message]
}
