import type { IncomingHttpHeaders } from 'node:http'
import { print, printResult, revive } from '../db/codec.ts'
import type { Database } from '../db/database.ts'
import { methodsOf } from '../db/methods.ts'
import { AGAIN_HEADER, DATABASE_PATH, REQUEST_HEADER } from '../db/remote.ts'
import { currentRequest } from '../db/request.ts'
import { hasKind, ServiceError } from '../domain/errors.ts'
import { STATUS } from './http/errors.ts'
import type { ApiRequest, ApiResponse } from './http/route.ts'
import type { EnterRequest, Face } from './http/server.ts'

/**
 * The database for nodes of the image service, as `db/remote.ts` asks for it: `POST /database/images.get` with a JSON
 * array of arguments. `admit` throws unless the caller is such a node.
 */
export function databaseFace(db: Database, admit: (request: EnterRequest) => Promise<void>): Face<undefined> {
  const methods = methodsOf(db)
  const fail = (error: unknown): ApiResponse => {
    const said = error instanceof ServiceError ? error : new ServiceError('internal', 'The registry failed')
    return answer(STATUS[said.kind], print(said))
  }

  const call = async (request: ApiRequest<undefined>): Promise<ApiResponse> => {
    const name = request.params['method'] as string
    const method = methods.get(name)
    if (method === undefined)
      throw new ServiceError('not-found', 'The registry has no such method', { detail: { unknownMethod: name } })
    const args = readArguments(await request.json())
    const id = requestId(request.headers)
    const run = () => method(...args)
    const result = await (id === undefined
      ? run()
      : currentRequest.run({ id, again: request.headers[AGAIN_HEADER] !== undefined, writes: 0 }, run))
    return answer(200, await printResult(result))
  }

  return {
    prefix: DATABASE_PATH,
    routes: [{ method: 'POST', path: '/:method', handle: call }],
    enter: async (request) => {
      await admit(request).catch(refuse)
      return undefined
    },
    headers: () => ({}),
    fail,
    refuse: ({ status, headers = {} }) => ({
      ...fail(new ServiceError(status === 405 ? 'not-allowed' : 'invalid', 'A call is made with POST')),
      status,
      headers,
    }),
  }
}

/** So that a node tells this from what the database refuses. */
function refuse(cause: unknown): never {
  throw hasKind(cause, 'unauthenticated', 'forbidden')
    ? new ServiceError(cause.kind, cause.message, { cause, detail: { refused: true } })
    : cause
}

const answer = (status: number, text: string): ApiResponse => ({
  status,
  headers: { 'content-type': 'application/json' },
  text,
})

function readArguments(json: unknown): readonly unknown[] {
  let args: unknown
  try {
    args = revive(json)
  } catch (cause) {
    if (cause instanceof ServiceError) throw cause
    throw new ServiceError('invalid', 'The arguments are nested too deeply', { cause })
  }
  if (!Array.isArray(args)) throw new ServiceError('invalid', 'Arguments are a JSON array')
  return args
}

/** Throws `invalid` for one that the database has no room for. */
function requestId(headers: IncomingHttpHeaders): string | undefined {
  const id = headers[REQUEST_HEADER]
  if (id === undefined || (typeof id === 'string' && /^[\w-]{8,48}$/.test(id))) return id
  throw new ServiceError('invalid', `${REQUEST_HEADER} must be a UUID`)
}
