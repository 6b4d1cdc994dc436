import { readFile, writeFile } from 'node:fs/promises'

/** One thing that was measured: the samples of both servers, or of one thing alone. */
export interface Row {
  readonly what: string
  readonly unit: string
  /** Whether less of it is better: time, memory, CPU. */
  readonly lessIsBetter: boolean
  readonly glance: readonly number[]
  readonly glimpse: readonly number[]
}

/** NaN says that a round has no such figure. */
export function median(values: readonly number[]): number {
  const sorted = values.filter((value) => !Number.isNaN(value)).toSorted((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  const [low = Number.NaN, high = Number.NaN] = [sorted[sorted.length % 2 === 0 ? middle - 1 : middle], sorted[middle]]
  return (low + high) / 2
}

const figure = (value: number): string => {
  if (Number.isNaN(value)) return '–'
  if (value >= 100) return Math.round(value).toLocaleString('en')
  return value.toPrecision(value >= 1 ? 3 : 2)
}

/** How many times better Glimpse is. */
function ratio({ glance, glimpse, lessIsBetter }: Row): string {
  const times = lessIsBetter ? median(glance) / median(glimpse) : median(glimpse) / median(glance)
  return Number.isNaN(times) || times === Number.POSITIVE_INFINITY ? '–' : `${figure(times)}×`
}

/** Of the two columns, and of how many times better the second one is. */
export type Names = readonly [string, string, string]
const NAMES: Names = ['Glance', 'Glimpse', 'better by']

/** A Markdown table whose columns line up in a terminal as well. */
export function table(rows: readonly Row[], names: Names = NAMES): string {
  const cells = [
    ['', ...names],
    ...rows.map((row) => [
      `${row.what}, ${row.unit}`,
      figure(median(row.glance)),
      figure(median(row.glimpse)),
      ratio(row),
    ]),
  ]
  const width = (column: number): number => Math.max(...cells.map((line) => line[column]?.length ?? 0))
  const line = (texts: readonly string[]): string =>
    `| ${texts.map((text, i) => (i === 0 ? text.padEnd(width(i)) : text.padStart(width(i)))).join(' | ')} |`
  const rule = `|${[0, 1, 2, 3].map((i) => (i === 0 ? '-'.repeat(width(i) + 2) : `${'-'.repeat(width(i) + 1)}:`)).join('|')}|`
  return [line(cells[0] ?? []), rule, ...cells.slice(1).map(line)].join('\n')
}

/** Puts `body` into the section of that name of a Markdown file; the other sections stay as they are. */
export async function saveSection(file: URL, name: string, body: string): Promise<void> {
  const [head = '', ...sections] = (await readFile(file, 'utf8')).split(/^(?=## )/m).map((part) => part.trim())
  const text = `## ${name}\n\n${body.trim()}`
  const at = sections.findIndex((section) => section.startsWith(`## ${name}\n`))
  const kept = at < 0 ? [...sections, text] : sections.with(at, text)
  await writeFile(file, `${[head, ...kept].join('\n\n')}\n`)
}
