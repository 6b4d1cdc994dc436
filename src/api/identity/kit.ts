import type { Token } from '../../auth/standalone/tokens.ts'
import type { Standalone } from '../../auth/standalone.ts'
import { ServiceError } from '../../domain/errors.ts'
import type { ApiRequest, ApiResponse, Method, Route } from '../http/route.ts'
import type { Place } from './views.ts'

export type Request = ApiRequest<undefined>
export type Json = Readonly<Record<string, unknown>>
export type Handler = (request: Request, place: Place) => ApiResponse | Promise<ApiResponse>
/** Tells the handler where things are. */
export type MakeRoute = (method: Method, path: string, handler: Handler) => Route<undefined>

export const json = (body: Json, status = 200): ApiResponse => ({ status, json: body })
export const NO_CONTENT: ApiResponse = { status: 204 }

export function header(request: Request, name: string): string | undefined {
  const value = request.headers[name]
  return (Array.isArray(value) ? value[0] : value) || undefined
}

export const caller = ({ tokens }: Standalone, request: Request): Token =>
  tokens.validate(header(request, 'x-auth-token') ?? '')

const isAdmin = (token: Token): boolean => token.roles.includes('admin')

/** Throws `forbidden` unless the caller is an admin or `allowed` says that it concerns the caller's own things. */
export function authorize(
  standalone: Standalone,
  request: Request,
  action: string,
  allowed: (token: Token) => boolean = () => false,
): Token {
  const token = caller(standalone, request)
  if (isAdmin(token) || allowed(token)) return token
  throw new ServiceError('forbidden', `You are not authorized to perform the requested action: identity:${action}.`)
}

/** Whether a query parameter that is a flag is on: present, and neither 0 nor false. */
export const flag = (request: Request, name: string): boolean =>
  request.query.some(([key, value]) => key === name && !['0', 'false'].includes(value.toLowerCase()))

export const parameter = (request: Request, name: string): string | undefined =>
  request.query.find(([key]) => key === name)?.[1]

/** A list with the rows that agree with the query in each of `filters`. */
export function collection(
  request: Request,
  place: Place,
  name: string,
  rows: readonly Json[],
  filters: readonly string[] = [],
) {
  const wanted = request.query.filter(([key]) => filters.includes(key))
  const matching = rows.filter((row) =>
    wanted.every(([key, value]) => String(row[key]) === (key === 'enabled' ? value.toLowerCase() : value)),
  )
  const query =
    request.query.length > 0
      ? `?${new URLSearchParams(request.query.map(([key, value]) => [key, value] as [string, string]))}`
      : ''
  const self = `${place.identityUrl}${request.path}${query}`
  return json({ [name]: matching, links: { next: null, self, previous: null } })
}
