/** What an error says, with the cause that it names no more of; one line, for operators. */
export function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const status = 'detail' in error ? (error.detail as { status?: unknown } | undefined)?.status : undefined
  // A failed attempt at several addresses has no message of its own.
  const message = error.message || ('code' in error ? String(error.code) : error.name)
  const cause = error.cause === undefined || error.cause === null ? '' : reason(error.cause)
  const more = [status === undefined ? '' : `status ${String(status)}`, message.includes(cause) ? '' : cause]
  return [message, ...more.filter((text) => text !== '')].join(': ').replaceAll('\n', ' ')
}
