import { ServiceError } from '../domain/errors.ts'

/** One assignment, as it is written: names keep their case, quotes and line breaks are resolved. */
export interface IniEntry {
  readonly group: string
  /** With `_` for every `-`. */
  readonly name: string
  readonly value: string
  readonly line: number
}

/**
 * Reads oslo.config's file dialect. There are no inline comments; an indented line continues the value above it; a
 * blank line or a comment ends a value. Throws `invalid` with file and line, and without the text, which may be secret.
 */
export function parseIni(content: string, file: string): readonly IniEntry[] {
  const entries: IniEntry[] = []
  let group: string | undefined
  let continuable = false
  for (const [index, raw] of content.split(/\r\n|\n|\r/).entries()) {
    const fail = (reason: string): never => {
      throw new ServiceError('invalid', `${file}:${index + 1}: ${reason}`)
    }
    const line = raw.trimEnd()
    if (line === '' || line.startsWith('#') || line.startsWith(';')) {
      continuable = false
    } else if (line.startsWith(' ') || line.startsWith('\t')) {
      const above = entries.pop()
      if (!continuable || above === undefined)
        return fail('this line continues nothing: its first character is a blank')
      entries.push({ ...above, value: `${above.value}\n${line.trimStart()}` })
    } else if (line.startsWith('[')) {
      group = readGroup(line, fail)
      continuable = false
    } else {
      if (group === undefined) return fail('expected a [group] before the first option')
      entries.push({ group, ...readAssignment(line, fail), line: index + 1 })
      continuable = true
    }
  }
  return entries
}

type Fail = (reason: string) => never

function readGroup(line: string, fail: Fail): string {
  if (!line.endsWith(']')) return fail('expected ] at the end of a line that starts with [')
  return line.slice(1, -1) || fail('expected the name of a group between [ and ]')
}

function readAssignment(line: string, fail: Fail): { name: string; value: string } {
  const separator = line.search(/[=:]/)
  if (separator < 0) return fail('expected an option: name = value')
  const name = line.slice(0, separator).trim().replaceAll('-', '_')
  if (name === '') return fail('expected the name of an option before the value')
  return { name, value: unquote(line.slice(separator + 1).trim()) }
}

const unquote = (value: string): string => (/^(["'])(?:.*\1)?$/s.test(value) ? value.slice(1, -1) : value)

/** A line of the dialect (or several, for a value of several lines) which reads as `value`. */
export const printEntry = (name: string, value: string): string => {
  const [first = '', ...more] = value.split('\n')
  const written = first !== first.trim() || unquote(first) !== first ? `"${first}"` : first
  return [`${name} = ${written}`.trimEnd(), ...more.map((line) => `  ${line}`)].join('\n')
}
