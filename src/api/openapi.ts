import { STATUS, TITLES } from './http/errors.ts'
import type { Description, JsonSchema, Route } from './http/route.ts'

/** The parts of a route that the document tells of. */
export type DescribedRoute = Pick<Route<never>, 'method' | 'path' | 'describe' | 'rejectsBody'>

export interface Api {
  readonly title: string
  readonly version: string
  /** What stands before the paths of the routes. */
  readonly prefix: string
  readonly routes: readonly DescribedRoute[]
  /** By the names that the routes' descriptions use. */
  readonly schemas: Readonly<Record<string, JsonSchema>>
}

type Json = Readonly<Record<string, unknown>>

/** The OpenAPI 3.1 document of the routes that are described. */
export function openApi({ title, version, prefix, routes, schemas }: Api): Json {
  const paths: Record<string, Record<string, unknown>> = {}
  for (const route of routes) {
    if (route.describe === undefined) continue
    const path = prefix + route.path.replace(PARAMETER, '{$1}')
    paths[path] ??= {}
    paths[path][route.method.toLowerCase()] = operation(route, route.describe)
  }
  return {
    openapi: '3.1.0',
    info: { title, version, license: { name: 'Apache-2.0', identifier: 'Apache-2.0' } },
    security: [{ token: [] }],
    paths,
    components: {
      securitySchemes: { token: { type: 'apiKey', in: 'header', name: 'X-Auth-Token' } },
      schemas: { ...components(schemas), Error: ERROR },
      headers: { RequestId: { description: 'The request, as the log calls it.', schema: { type: 'string' } } },
      responses: ERRORS,
    },
  }
}

const PARAMETER = /:(\w+)/g

function operation({ method, path, rejectsBody }: DescribedRoute, about: Description): Json {
  const { summary, rules = [], query = {}, headers = {}, body, answers } = about
  const names = [...path.matchAll(PARAMETER)].map(([, name = '']) => name)
  const parameter =
    (where: string) =>
    ([name, schema]: readonly [string, JsonSchema]) => ({
      name,
      in: where,
      required: where === 'path',
      schema,
    })
  return {
    operationId: [method.toLowerCase(), ...path.split('/').filter((part) => part !== '')].join('_').replaceAll(':', ''),
    summary,
    ...(rules.length === 0 ? {} : { 'x-openstack-policies': rules }),
    parameters: [
      ...names.map((name) => parameter('path')([name, pathSchema(name)])),
      ...Object.entries(query).map(parameter('query')),
      ...Object.entries(headers).map(parameter('header')),
    ],
    ...(body === undefined ? {} : { requestBody: { required: true, content: contents(body) } }),
    responses: {
      ...Object.fromEntries(Object.entries(answers).map(([status, schema]) => [status, answer(status, schema)])),
      ...errors(rules.length > 0, names.length > 0, rejectsBody === true || body !== undefined),
      default: response('Error'),
    },
  }
}

const IDS = new Set(['image_id', 'task_id'])
const pathSchema = (name: string): JsonSchema =>
  IDS.has(name) ? { type: 'string', format: 'uuid' } : { type: 'string', minLength: 1, maxLength: 255 }

const contents = (body: Readonly<Record<string, string | JsonSchema>>): Json =>
  Object.fromEntries(Object.entries(body).map(([type, schema]) => [type, { schema: reference(schema) }]))

const BYTES: JsonSchema = { type: 'string', format: 'binary' }
const reference = (schema: string | JsonSchema): JsonSchema => {
  if (typeof schema !== 'string') return schema
  return schema === 'data' ? BYTES : { $ref: `#/components/schemas/${schema}` }
}

const answer = (status: string, schema: string | JsonSchema | null): Json => ({
  description: TITLES[Number(status)] ?? OK[status] ?? 'Done',
  headers: { 'x-openstack-request-id': { $ref: '#/components/headers/RequestId' } },
  ...(schema === null
    ? {}
    : {
        content: {
          [schema === 'data' ? 'application/octet-stream' : 'application/json']: { schema: reference(schema) },
        },
      }),
})
const OK: Readonly<Record<string, string>> = {
  200: 'OK',
  201: 'Created',
  202: 'Accepted',
  204: 'No Content',
  206: 'Partial Content',
}

/** Those that a client of the route should know; all others are errors of the same form. */
const errors = (policed: boolean, named: boolean, strict: boolean): Json => ({
  ...(strict ? { [STATUS.invalid]: response('Invalid') } : {}),
  [STATUS.unauthenticated]: response('Unauthenticated'),
  ...(policed ? { [STATUS.forbidden]: response('Forbidden') } : {}),
  ...(named ? { [STATUS['not-found']]: response('NotFound') } : {}),
})
const response = (name: keyof typeof ERRORS): Json => ({ $ref: `#/components/responses/${name}` })

/** As a client that accepts JSON, HTML or anything else reads it. */
const errorResponse = (description: string): Json => ({
  description,
  content: {
    'application/json': { schema: { $ref: '#/components/schemas/Error' } },
    'text/html': { schema: { type: 'string' } },
    'text/plain': { schema: { type: 'string' } },
  },
})

const ERRORS = {
  Invalid: errorResponse('The request cannot be understood.'),
  Unauthenticated: errorResponse('The token is missing, wrong or too old.'),
  Forbidden: errorResponse('A policy denies it.'),
  NotFound: errorResponse('It is not there, or not for the caller to see.'),
  Error: errorResponse('An error, whose status says of what kind.'),
} as const

const ERROR: JsonSchema = {
  type: 'object',
  properties: { message: { type: 'string' }, code: { type: 'string' }, title: { type: 'string' } },
  required: ['message', 'code', 'title'],
}

/** JSON schemas as they are served, in the document's terms: what they define becomes a component of its own. */
function components(schemas: Readonly<Record<string, JsonSchema>>): Json {
  const found: Record<string, unknown> = {}
  for (const [name, schema] of Object.entries(schemas)) {
    const { name: title, links: _links, definitions = {}, ...rest } = schema
    const refer = (value: unknown) => inTerms(value, (definition) => `#/components/schemas/${name}.${definition}`)
    for (const [definition, inner] of Object.entries(definitions as Json)) found[`${name}.${definition}`] = refer(inner)
    found[name] = { ...(title === undefined ? {} : { title }), type: 'object', ...(refer(rest) as Json) }
  }
  return found
}

/** `value` with what it refers to among the definitions found elsewhere, and without marks that mean nothing here. */
function inTerms(value: unknown, place: (definition: string) => string): unknown {
  if (Array.isArray(value)) return value.map((item) => inTerms(item, place))
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key]) => key !== 'is_base' && key !== 'links')
      .map(([key, item]) => {
        if (key === '$ref' && typeof item === 'string') return [key, place(item.replace('#/definitions/', ''))]
        return [key, inTerms(item, place)]
      }),
  )
}
