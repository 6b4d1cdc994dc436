import type { IncomingHttpHeaders } from 'node:http'
import type { ByteSource } from '../../io/bytes.ts'
import type { RuleName } from '../../policy/rules.ts'

export type Method = 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'

/** A request as handlers see it; `Context` is what the face's gate (authentication) found out about the caller. */
export interface ApiRequest<Context> {
  readonly method: string
  /** Path below the face's prefix, still encoded. */
  readonly path: string
  /** Decoded path parameters. */
  readonly params: Readonly<Record<string, string>>
  /** Pairs in order, decoded. */
  readonly query: readonly (readonly [name: string, value: string])[]
  readonly headers: IncomingHttpHeaders
  /** `http://host` as the client sees it, with the script name of a proxy and no slash at the end. */
  readonly baseUrl: string
  readonly context: Context
  readonly signal: AbortSignal
  /** Of the client, as far as the server trusts what proxies say about it; what failed logins are counted by. */
  readonly remoteAddress?: string | undefined
  /** Whether a body was announced: Content-Length above 0, or chunked. */
  readonly hasBody: boolean
  /** The bytes of the body as they come. Asking for them answers `Expect: 100-continue`. */
  body(): ByteSource
  /** The whole body as JSON. Throws `invalid` when it is not JSON, `too-large` above the limit. */
  json(): Promise<unknown>
}

export interface ApiResponse {
  readonly status: number
  readonly headers?: Readonly<Record<string, string>>
  /** Rendered as `application/json`. */
  readonly json?: unknown
  readonly text?: string
  /** Sent as it comes; `headers` must say Content-Type and Content-Length. */
  readonly data?: ByteSource
}

export type JsonSchema = Readonly<Record<string, unknown>>

/** What the API document (openapi.ts) tells of a route. A schema is a JSON schema, or the name of one of the document's. */
export interface Description {
  readonly summary: string
  /** Policy rules that are asked; callers whom they deny get 403, or 404 where they may not even see what it is about. */
  readonly rules?: readonly RuleName[]
  /** Parameters of the query, and headers, beside those of every route. */
  readonly query?: Readonly<Record<string, JsonSchema>>
  readonly headers?: Readonly<Record<string, JsonSchema>>
  /** The request's body by media type. */
  readonly body?: Readonly<Record<string, string | JsonSchema>>
  /** Answers that are no errors, by status: the schema of their JSON, `data` for the bytes of an image, null for no body. */
  readonly answers: Readonly<Record<number, string | JsonSchema | null>>
}

export interface Route<Context> {
  readonly method: Method
  /** `/images/:image_id/file`; parameters take one segment each. */
  readonly path: string
  /** `data` routes move image data and may be served by a process of their own. */
  readonly plane?: 'control' | 'data'
  /** An unexpected body is answered with 400 instead of being ignored. */
  readonly rejectsBody?: boolean
  readonly describe?: Description
  readonly handle: (request: ApiRequest<Context>) => Promise<ApiResponse>
}
