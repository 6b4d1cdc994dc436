import type { Random } from './random.ts'

/** What has been made so far, as far as it takes to ask for things that are there. */
export interface Model {
  readonly images: Map<string, ImageModel>
  readonly namespaces: Map<string, NamespaceModel>
  /** Ids. */
  readonly tasks: string[]
}

export interface ImageModel {
  readonly id: string
  owner: string
  visibility: string
  status: string
  /** Since the last action that succeeded; the status is that of the last answer. */
  deactivated?: boolean
  size: number
  readonly stores: readonly string[]
  readonly tags: Set<string>
  readonly members: Set<string>
  readonly properties: Set<string>
}

export interface NamespaceModel {
  name: string
  readonly objects: Set<string>
  readonly properties: Set<string>
  readonly tags: Set<string>
  readonly types: Set<string>
}

export const emptyModel = (): Model => ({ images: new Map(), namespaces: new Map(), tasks: [] })

/** An image that is there, or now and then one that is not. */
export function anyImage(
  model: Model,
  random: Random,
  unlikely: () => string,
  wanted?: (image: ImageModel) => boolean,
): string {
  const all = [...model.images.values()]
  const fitting = wanted === undefined ? all : all.filter(wanted)
  const from = fitting.length > 0 && random.chance(0.8) ? fitting : all
  // The newest are asked for most: they are least worn.
  const recent = from.slice(-12)
  return recent.length === 0 || random.chance(0.06) ? unlikely() : random.pick(random.chance(0.7) ? recent : from).id
}

/** Takes in what an image looks like now. */
export function learnImage(model: Model, json: Readonly<Record<string, unknown>>): void {
  const id = String(json['id'])
  const known = model.images.get(id)
  const image: ImageModel = {
    id,
    owner: String(json['owner']),
    visibility: String(json['visibility']),
    status: String(json['status']),
    size: Number(json['size'] ?? 0),
    stores: typeof json['stores'] === 'string' ? json['stores'].split(',') : [],
    tags: new Set(json['tags'] as string[]),
    members: known?.members ?? new Set(),
    properties: new Set(Object.keys(json).filter((name) => !STANDARD.has(name))),
  }
  model.images.set(id, image)
}

const STANDARD = new Set(
  'id name status visibility owner size virtual_size min_disk min_ram disk_format container_format checksum os_hash_algo os_hash_value protected os_hidden created_at updated_at tags self file schema stores locations direct_url'.split(
    ' ',
  ),
)
