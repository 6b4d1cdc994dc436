import { compareAnswers, type Details, type Settled } from '../../../src/cli/takeover/shadow/compare.ts'
import type { Response } from '../../support/golden.ts'

export type { Details } from '../../../src/cli/takeover/shadow/compare.ts'

/** Ids that the servers chose themselves: what is called on the left there is called on the right here. */
export type Aliases = ReadonlyMap<string, string>

export interface Names {
  readonly host: string
  /** The folder of the stores. */
  readonly dir: string
  readonly aliases: Aliases
}

const UUID = /[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/g
const TIME = /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z?/g

/** `text` with everything replaced that is another each time: hosts, request ids, times, ids that are aliases. */
function general(raw: string, { host, dir, aliases }: Names, asked: string): string {
  const text = raw.startsWith('!hex ') ? Buffer.from(raw.slice(5), 'hex').toString('latin1') : raw
  return (
    text
      .replaceAll(dir, '{dir}')
      .replaceAll(host, '{host}')
      .replace(new RegExp(`req-${UUID.source}`, 'g'), (id) => (asked.includes(id) ? id : '{request}'))
      .replace(TIME, (time) => (asked.includes(time) ? time : '{time}'))
      .replace(UUID, (id) => aliases.get(id) ?? id)
      // What a validator says about itself is a matter of its library.
      .replace(/(does not match schema '\w+': ).*/s, '$1{reason}')
  )
}

/** The answer without what is another each time. */
const settled = ({ answer, names }: Side, asked: string): Settled => ({
  status: answer.status,
  headers: new Map(answer.headers.map(([name, value]) => [name, general(value, names, asked)])),
  body: withoutCacheTimes(general(answer.body ?? '', names, asked)),
})

/** Numbers of a cache's listing that are another each time: its times, and the numbers of its rows. */
const VOLATILE: readonly string[] = ['last_accessed', 'last_modified', 'id']

/** What a cache lists comes in any order. Other text is given back as it is. */
function withoutCacheTimes(text: string): string {
  if (!/^\{"(cached|queued)_images"/.test(text)) return text
  const listing = JSON.parse(text, (name, value: unknown) =>
    typeof value === 'number' && VOLATILE.includes(name) ? `{${name}}` : value,
  ) as Readonly<Record<string, readonly unknown[]>>
  const sorted = Object.entries(listing).map(([name, items]) => [name, items.toSorted(byImage)])
  return JSON.stringify(Object.fromEntries(sorted))
}

const byImage = (a: unknown, b: unknown): number => (imageOf(a) < imageOf(b) ? -1 : 1)
const imageOf = (item: unknown): string =>
  typeof item === 'string' ? item : String((item as { readonly image_id: unknown }).image_id)

interface Side {
  readonly answer: Response
  readonly names: Names
}

export const differences = (theirs: Side, ours: Side, asked: string): Details =>
  compareAnswers(settled(theirs, asked), settled(ours, asked), { ofSchema: asked.includes('/schemas/') })
