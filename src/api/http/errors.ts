import { type ErrorKind, ServiceError } from '../../domain/errors.ts'
import type { ApiResponse } from './route.ts'

/** The one place where an error gets its HTTP status. */
export const STATUS = {
  'no-data': 204,
  invalid: 400,
  unauthenticated: 401,
  forbidden: 403,
  'not-found': 404,
  'not-allowed': 405,
  conflict: 409,
  gone: 410,
  'too-large': 413,
  'unsupported-media-type': 415,
  'range-not-satisfiable': 416,
  'too-many-requests': 429,
  'header-too-large': 431,
  internal: 500,
  'bad-gateway': 502,
  unavailable: 503,
  timeout: 504,
} as const satisfies Record<ErrorKind, number>

/** Titles as WebOb words them (webob/exc.py), where they differ from RFC 9110. */
export const TITLES: Readonly<Record<number, string>> = {
  300: 'Multiple Choices',
  302: 'Found',
  400: 'Bad Request',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'Not Found',
  405: 'Method Not Allowed',
  409: 'Conflict',
  410: 'Gone',
  413: 'Request Entity Too Large',
  415: 'Unsupported Media Type',
  416: 'Request Range Not Satisfiable',
  429: 'Too Many Requests',
  431: 'Request Header Fields Too Large',
  500: 'Internal Server Error',
  501: 'Not Implemented',
  502: 'Bad Gateway',
  503: 'Service Unavailable',
  504: 'Gateway Timeout',
}

/** What clients have always read for errors that say nothing of their own. */
const UNAUTHORIZED =
  'This server could not verify that you are authorized to access the document you requested. Either you supplied the ' +
  'wrong credentials (e.g., bad password), or your browser does not understand how to supply the credentials required.'
const ERRED = 'The server has either erred or is incapable of performing\r\nthe requested operation.\r\n'

export interface Failure {
  readonly status: number
  readonly headers?: Readonly<Record<string, string>>
  /** Text with `<br />` where a line ends; inserted words are escaped when rendered as HTML. */
  readonly parts: readonly (readonly [text: string, markup: boolean])[]
}

const BREAK = ['<br /><br />\n', true] as const

const explained = (status: number, explanation: string, headers: Readonly<Record<string, string>> = {}): Failure => ({
  status,
  headers,
  parts: [[explanation, false], BREAK, ['\n\n', true]],
})

export const methodNotAllowed = (method: string, allowed: readonly string[]): Failure => ({
  status: 405,
  headers: { allow: allowed.join(', ') },
  parts: [['The method ', true], [method, false], [' is not allowed for this resource. ', true], BREAK],
})

export const methodNotImplemented = (method: string): Failure => ({
  status: 501,
  parts: [['\nThe request method ', true], [method, false], [' is not implemented for this server. ', true], BREAK],
})

/** `contentType` is the request's; a 415 names it. */
export function failureOf(error: unknown, contentType: string | undefined, challenge: string | undefined): Failure {
  if (!(error instanceof ServiceError) || error.kind === 'internal') return explained(500, ERRED)
  const { kind, message } = error
  const headers = headersOf(error)
  switch (kind) {
    case 'unauthenticated':
      return explained(
        401,
        UNAUTHORIZED,
        challenge === undefined ? headers : { ...headers, 'www-authenticate': challenge },
      )
    case 'not-allowed':
      return { status: STATUS[kind], headers, parts: [[message, false]] }
    case 'range-not-satisfiable':
      return {
        status: 416,
        headers,
        parts: [['The Range requested is not available.', true], BREAK, [message, false], ['\n\n', true]],
      }
    case 'unsupported-media-type':
      return {
        status: 415,
        headers,
        parts: [
          ['The request media type ', true],
          [contentType ?? 'text/plain', false],
          [' is not supported by this server.', true],
          ['\n<br /><br />\n', true],
          [message, false],
        ],
      }
    default:
      return explained(STATUS[kind], message, headers)
  }
}

/** Headers that an error asks for travel in its detail. */
const headersOf = (error: ServiceError): Readonly<Record<string, string>> =>
  (error.detail['headers'] as Readonly<Record<string, string>> | undefined) ?? {}

/** `<`, `&`, quotes and everything beyond ASCII as WebOb's html_escape does. */
const escapeHtml = (text: string): string =>
  text.replace(/[&<>"']|[^\0-\x7f]/gu, (char) => {
    switch (char) {
      case '&':
        return '&amp;'
      case '<':
        return '&lt;'
      case '>':
        return '&gt;'
      case '"':
        return '&quot;'
      case "'":
        return '&#x27;'
      default:
        return `&#${char.codePointAt(0)};`
    }
  })

const stripTags = (text: string): string =>
  text
    .replaceAll('\n', ' ')
    .replaceAll('\r', '')
    .replace(/<br.*?>/gis, '\n')
    .replace(/<!--|-->/g, '')
    .replace(/<.*?>/gs, '')

/** The body that WebOb would send: HTML, JSON or plain text, whichever the client likes best. */
export function renderFailure(failure: Failure, accept: string | undefined): ApiResponse {
  const title = TITLES[failure.status] ?? 'Error'
  const line = `${failure.status} ${title}`
  const plain = failure.parts.map(([text]) => text).join('')
  const rendering = preferredRendering(accept)
  const answer = (type: string, text: string): ApiResponse => ({
    status: failure.status,
    headers: { ...failure.headers, 'content-type': type },
    text,
  })
  switch (rendering) {
    case 'text/html': {
      const body = failure.parts.map(([text, markup]) => (markup ? text : escapeHtml(text))).join('')
      return answer(
        'text/html; charset=UTF-8',
        `<html>\n <head>\n  <title>${line}</title>\n </head>\n <body>\n  <h1>${line}</h1>\n  ${body}\n </body>\n</html>`,
      )
    }
    case 'application/json':
      return answer('application/json', JSON.stringify({ message: plain, code: line, title }))
    default:
      return answer('text/plain; charset=UTF-8', `${line}\n\n${stripTags(plain)}`)
  }
}

const RENDERINGS = ['text/html', 'application/json'] as const
const RANGE = /^\s*([^\s/;,]+)\/([^\s/;,]+)\s*((?:;[^,]*)?)$/

/** No header or an empty one, or one that wants neither: plain text. A header that cannot be read wants anything. */
export function preferredRendering(accept: string | undefined): (typeof RENDERINGS)[number] | 'text/plain' {
  if (accept === undefined || accept.trim() === '') return 'text/plain'
  const ranges: { type: string; subtype: string; quality: number }[] = []
  for (const part of accept.split(',')) {
    if (part.trim() === '') continue
    const match = RANGE.exec(part)
    if (match === null) return 'text/html'
    const parameters = (match[3] ?? '').split(';').map((parameter) => parameter.trim())
    const quality = parameters.flatMap((parameter) => /^q\s*=\s*([0-9.]+)$/i.exec(parameter)?.[1] ?? [])[0]
    // We offer types without parameters: a range that wants one is for others.
    if (parameters.some((parameter) => parameter !== '' && !/^q\s*=/i.test(parameter))) continue
    ranges.push({
      type: (match[1] ?? '').toLowerCase(),
      subtype: (match[2] ?? '').toLowerCase(),
      quality: quality === undefined ? 1 : Number(quality),
    })
  }
  const qualityOf = (offer: string): number => {
    const [type, subtype] = offer.split('/')
    const specific =
      ranges.find((range) => range.type === type && range.subtype === subtype) ??
      ranges.find((range) => range.type === type && range.subtype === '*') ??
      ranges.find((range) => range.type === '*' && range.subtype === '*')
    return specific?.quality ?? 0
  }
  const best = RENDERINGS.map((offer) => ({ offer, quality: qualityOf(offer) }))
    .filter(({ quality }) => quality > 0)
    .sort((a, b) => b.quality - a.quality)[0]
  return best?.offer ?? 'text/plain'
}
