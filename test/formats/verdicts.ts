import type { Sample } from './corpus.ts'

/** The disk formats that Glance knows unless it is told of others; `ami` stands for those that nobody can recognise. */
export const DECLARED = ['ami', 'vhd', 'vhdx', 'vmdk', 'raw', 'qcow2', 'vdi', 'iso'] as const

/** What `require_image_format_match` says. */
export const MODES = ['required', 'tolerated'] as const
export type Mode = (typeof MODES)[number]

/**
 * The answer to an upload: `415`, or `204` and the virtual size that the image has then: bytes, `size` where it is the
 * size of the data, `-` where there is none.
 */
export type Answer = string

/** By sample, mode and declared format. */
export type Verdicts = ReadonlyMap<string, Readonly<Partial<Record<Mode, Readonly<Record<string, Answer>>>>>>

/** Uploads the sample as `declared` to a server of images. */
export async function upload(
  baseUrl: string,
  headers: Readonly<Record<string, string>>,
  { data }: Sample,
  declared: string,
): Promise<Answer> {
  const draft = { disk_format: declared, container_format: 'bare' }
  const created = await fetch(`${baseUrl}/v2/images`, {
    method: 'POST',
    headers: { ...headers, 'Content-Type': 'application/json' },
    body: JSON.stringify(draft),
  })
  if (created.status !== 201) throw new Error(`${created.status} for an image of ${declared}: ${await created.text()}`)
  const { id } = (await created.json()) as { id: string }
  const image = `${baseUrl}/v2/images/${id}`
  const put = await fetch(`${image}/file`, {
    method: 'PUT',
    headers: { ...headers, 'Content-Type': 'application/octet-stream' },
    body: new Uint8Array(data),
  })
  await put.arrayBuffer()
  return put.status === 204 ? `204 ${await virtualSize(image, headers, data.length)}` : String(put.status)
}

/** Servers close idle connections when they please, and a request that meets this is lost. */
async function persistently<T>(attempt: () => Promise<T>, times = 3): Promise<T> {
  try {
    return await attempt()
  } catch (error) {
    if (times === 1 || !(error instanceof TypeError)) throw error
    return await persistently(attempt, times - 1)
  }
}

async function virtualSize(image: string, headers: Readonly<Record<string, string>>, size: number): Promise<string> {
  const { virtual_size } = (await (await fetch(image, { headers })).json()) as { virtual_size: number | null }
  if (virtual_size === null) return '-'
  return virtual_size === size ? 'size' : String(virtual_size)
}

/** What a server makes of each sample, under each disk format that is `wanted` of it; one at a time, for SQLite's sake. */
export async function ask(
  baseUrl: string,
  headers: Readonly<Record<string, string>>,
  samples: readonly Sample[],
  wanted: (sample: Sample) => readonly string[] = () => DECLARED,
): Promise<ReadonlyMap<string, Readonly<Record<string, Answer>>>> {
  const answers = new Map<string, Readonly<Record<string, Answer>>>()
  for (const sample of samples) {
    const found: Record<string, Answer> = {}
    for (const declared of wanted(sample)) {
      found[declared] = await persistently(() => upload(baseUrl, headers, sample, declared))
    }
    answers.set(sample.name, found)
  }
  return answers
}

/** One paragraph for each sample, in the order given. */
export const print = (about: string, verdicts: Verdicts): string =>
  [
    `# ${about}`,
    ...[...verdicts].map(([name, modes]) =>
      [`\n${name}`, ...MODES.flatMap((mode) => line(mode, modes[mode]))].join('\n'),
    ),
  ]
    .join('\n')
    .concat('\n')

function line(mode: Mode, answers: Readonly<Record<string, Answer>> | undefined): readonly string[] {
  if (answers === undefined) return []
  const kinds = [...new Set(Object.values(answers))].toSorted()
  const groups = kinds.map((kind) => `${kind}: ${DECLARED.filter((each) => answers[each] === kind).join(' ')}`)
  return [`  ${mode}  ${groups.join(' | ')}`]
}

export function parse(text: string): Verdicts {
  const paragraphs = text.split('\n\n').slice(1)
  return new Map(
    paragraphs.map((paragraph) => {
      const [name = '', ...lines] = paragraph.trimEnd().split('\n')
      const modes = lines.map((each): [string, Record<string, Answer>] => {
        const [, mode = '', rest = ''] = /^ {2}(\w+) {2}(.*)$/.exec(each) ?? []
        const groups = rest.split(' | ').map((group) => group.split(': ') as [string, string])
        return [
          mode,
          Object.fromEntries(groups.flatMap(([kind, formats]) => formats.split(' ').map((format) => [format, kind]))),
        ]
      })
      return [name, Object.fromEntries(modes)]
    }),
  )
}
