import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import { hasKind } from '../../../domain/errors.ts'
import { type Arguments, type Row, raised } from '../../rows.ts'
import {
  badArguments,
  type Commands,
  type Desk,
  dictionary,
  flag,
  integer,
  isDictionary,
  optionalText,
  reads,
  STAMPED,
  text,
  without,
  writes,
} from './command.ts'
import {
  checkedId,
  findImage,
  type ImageRow,
  isVisible,
  NOT_FOUND,
  requireChangeable,
  requireMutable,
} from './rights.ts'

/** An image with what belongs to it, as Glance's drivers gave it. */
export type ImageDict = ImageRow & { readonly properties: readonly Row[]; readonly locations: readonly Row[] }

const STATUSES = [
  ...['active', 'saving', 'queued', 'killed', 'pending_delete', 'deleted', 'deactivated', 'importing', 'uploading'],
]
const LARGEST = 2 ** 31 - 1

const living = sql`deleted = ${false}`

export const imageCommands: Commands = {
  image_create: writes(['values'], ['v1_mode'], async (desk, args) => {
    const image = await createImage(desk, dictionary(args, 'values'))
    return flag(args, 'v1_mode') ? toV1(image) : image
  }),
  image_update: writes(
    ['image_id', 'values'],
    ['purge_props', 'from_state', 'v1_mode', 'atomic_props'],
    async (desk, args) => {
      const image = await updateImage(desk, text(args, 'image_id'), dictionary(args, 'values'), {
        purge: flag(args, 'purge_props'),
        from: optionalText(args, 'from_state'),
        untouched: Array.isArray(args['atomic_props']) ? args['atomic_props'] : [],
      })
      return flag(args, 'v1_mode') ? toV1(image) : image
    },
  ),
  image_destroy: writes(['image_id'], [], (desk, args) => destroyImage(desk, text(args, 'image_id'))),
  image_get: reads(['image_id'], ['force_show_deleted', 'v1_mode'], async (desk, args) => {
    const image = await getImage(desk, text(args, 'image_id'), flag(args, 'force_show_deleted'))
    return flag(args, 'v1_mode') ? toV1(image) : image
  }),
  is_image_visible: reads(['image'], ['status'], (desk, args) =>
    isVisible(desk, dictionary(args, 'image'), optionalText(args, 'status')),
  ),
  image_property_create: writes(['values'], [], async (desk, args) => {
    const values = dictionary(args, 'values')
    const [imageId, name] = [text(values, 'image_id'), text(values, 'name')]
    await requireChangeable(desk, imageId)
    await setProperty(desk, imageId, name, values['value'])
    const { deleted_at: _, ...row } = (await propertyOf(desk, imageId, name)) ?? {}
    return row
  }),
  image_property_delete: writes(['prop_ref', 'image_ref'], [], async (desk, args) => {
    const [imageId, name] = [text(args, 'image_ref'), text(args, 'prop_ref')]
    await requireChangeable(desk, imageId)
    const where = sql`image_id = ${imageId} and name = ${name}`
    const gone = { deleted: true, deleted_at: desk.now() }
    if ((await desk.update(desk.session, 'image_properties', gone, where)) === 0)
      throw raised('NotFound', `No property ${name} of image ${imageId}`)
    return propertyOf(desk, imageId, name)
  }),
  image_tag_set_all: writes(['image_id', 'tags'], [], async (desk, args) => {
    const imageId = text(args, 'image_id')
    if (!Array.isArray(args['tags'])) throw badArguments('tags must be a list')
    await requireChangeable(desk, imageId)
    const wanted = args['tags'].map(String)
    const present = await tagsOf(desk, imageId)
    for (const tag of new Set(wanted)) if (!present.includes(tag)) await addTag(desk, imageId, tag)
    for (const tag of new Set(present)) if (!wanted.includes(tag)) await removeTag(desk, imageId, tag)
    return null
  }),
  image_tag_create: writes(['image_id', 'value'], [], async (desk, args) => {
    const value = text(args, 'value')
    await requireChangeable(desk, text(args, 'image_id'))
    await addTag(desk, text(args, 'image_id'), value)
    return value
  }),
  image_tag_delete: writes(['image_id', 'value'], [], async (desk, args) => {
    await requireChangeable(desk, checkedId(args))
    if ((await removeTag(desk, checkedId(args), text(args, 'value'))) === 0) throw raised('NotFound', NOT_FOUND)
    return null
  }),
  image_tag_get_all: reads(['image_id'], [], (desk, args) => tagsOf(desk, checkedId(args))),
  image_location_delete: writes(['image_id', 'location_id', 'status'], ['delete_time'], async (desk, args) => {
    const status = text(args, 'status')
    if (!['deleted', 'pending_delete'].includes(status))
      throw raised('Invalid', "The status of deleted image location can only be set to 'pending_delete' or 'deleted'")
    const location = { id: integer(args, 'location_id'), imageId: text(args, 'image_id') }
    await requireChangeable(desk, location.imageId)
    await changeLocation(desk, location, { status, deleted: true, deleted_at: args['delete_time'] ?? desk.now() })
    return null
  }),
  image_location_update: writes(['image_id', 'location'], [], async (desk, args) => {
    await requireChangeable(desk, text(args, 'image_id'))
    await updateLocation(desk, text(args, 'image_id'), dictionary(args, 'location'))
    return null
  }),
  user_get_storage_usage: reads(['owner_id'], ['image_id'], async (desk, args) => {
    const except = optionalText(args, 'image_id')
    const images = await desk.select(
      desk.session,
      'images',
      sql`where owner = ${optionalText(args, 'owner_id')} and size > 0 and status not in ('killed', 'deleted')
        ${except === null ? sql`` : sql`and id <> ${except}`}`,
    )
    let total = 0
    for (const { id, size } of images)
      total +=
        (size ?? 0) * (await desk.count(desk.session, 'image_locations', sql`image_id = ${id} and status <> 'deleted'`))
    return total
  }),
}

/** `is_public` in place of `visibility`. */
export const toV1 = ({ visibility, ...image }: ImageDict): Row => ({ ...image, is_public: visibility === 'public' })

const fromV1 = (values: Arguments): Arguments => {
  if (!Object.hasOwn(values, 'is_public')) return values
  if (Object.hasOwn(values, 'visibility'))
    throw raised('Invalid', "Specifying both 'visibility' and 'is_public' is not permiitted.")
  const { is_public, ...rest } = values
  return { ...rest, visibility: is_public ? 'public' : 'shared' }
}

/** Children of each image, in the order of their ids; locations without those that are deleted, unless `all`. */
export async function withChildren(
  desk: Desk,
  images: readonly ImageRow[],
  all: boolean,
): Promise<readonly ImageDict[]> {
  if (images.length === 0) return []
  const ids = sql.join(images.map(({ id }) => id))
  const ofThem = sql`where image_id in (${ids}) order by id`
  const properties = Map.groupBy(await desk.select(desk.session, 'image_properties', ofThem), (row) => row.image_id)
  const locations = Map.groupBy(await desk.select(desk.session, 'image_locations', ofThem), (row) => row.image_id)
  return images.map((image) => {
    const hidden = image.status === 'deactivated' && !desk.context.admin
    const shown = (locations.get(image.id) ?? []).filter((location) => !hidden && (all || !location.deleted))
    return {
      ...image,
      properties: properties.get(image.id) ?? [],
      locations: shown.map(({ id, value, meta_data, status }) => ({ id, url: value, metadata: meta_data, status })),
    }
  })
}

export async function getImage(desk: Desk, id: string, showDeleted: boolean): Promise<ImageDict> {
  const found = await withChildren(desk, [await findImage(desk, id, showDeleted)], showDeleted)
  return found[0] as ImageDict
}

function checkValues(values: Arguments, statusNeeded: boolean): void {
  const { status } = values
  if (statusNeeded && (typeof status !== 'string' || status === ''))
    throw raised('Invalid', 'Image status is required.')
  if (typeof status === 'string' && status !== '' && !STATUSES.includes(status))
    throw raised('Invalid', `Invalid image status '${status}' for image.`)
  for (const name of ['min_disk', 'min_ram'])
    if (Number(values[name] ?? 0) > LARGEST)
      throw raised('Invalid', `'${name}' value out of range, must not exceed ${LARGEST}.`)
  for (const name of ['size', 'virtual_size', 'min_disk', 'min_ram'])
    if (values[name] !== undefined && values[name] !== null && !Number.isInteger(Number(values[name])))
      throw raised('Invalid', `'${name}' must be a whole number.`)
}

/** Apart: columns of the image, its properties and its locations. */
function split(values: Arguments) {
  const { properties, locations, ...columns } = fromV1(values)
  return {
    columns: { ...columns, ...('owner' in columns ? { owner: columns['owner'] || null } : {}) } as Arguments,
    properties: isDictionary(properties) ? properties : {},
    locations: Array.isArray(locations) ? locations.filter(isDictionary) : [],
  }
}

async function createImage(desk: Desk, values: Arguments): Promise<ImageDict> {
  const { columns, properties, locations } = split(values)
  checkValues(columns, true)
  const now = desk.now()
  const image = {
    visibility: 'shared',
    created_at: now,
    updated_at: now,
    deleted: false,
    os_hidden: false,
    ...columns,
    id: columns['id'] || randomUUID(),
    min_ram: columns['min_ram'] || 0,
    min_disk: columns['min_disk'] || 0,
    protected: Boolean(columns['protected']),
  }
  await desk.insert(desk.session, 'images', image).catch((error: unknown) => {
    if (hasKind(desk.facts.translate(error), 'conflict'))
      throw raised('Duplicate', `Image ID ${String(image.id)} already exists!`)
    throw error
  })
  await setProperties(desk, image.id as string, properties, { purge: false, untouched: [] })
  if (locations.length > 0) await setLocations(desk, image.id as string, locations)
  return getImage(desk, image.id as string, false)
}

interface UpdateRules {
  /** Remove the properties that are not in the new values. */
  readonly purge: boolean
  readonly from: string | null
  /** Properties that stay as they are. */
  readonly untouched: readonly unknown[]
}

async function updateImage(desk: Desk, id: string, values: Arguments, rules: UpdateRules): Promise<ImageDict> {
  const image = await findImage(desk, id, false)
  requireMutable(desk.context, image)
  const { columns, properties, locations } = split(values)
  checkValues(columns, Boolean(columns['status']))
  const change = { ...without(columns, [...STAMPED, 'id']), updated_at: desk.now() }
  const from = rules.from === null ? sql`` : sql`and status = ${rules.from}`
  if ((await desk.update(desk.session, 'images', change, sql`id = ${id} ${from}`)) === 0)
    throw raised(
      'Conflict',
      `cannot transition from ${image.status} to ${String(columns['status'] ?? 'None')} in update (wanted from_state=${rules.from})`,
    )
  await setProperties(desk, id, properties, rules)
  if (locations.length > 0) await setLocations(desk, id, locations)
  return getImage(desk, id, false)
}

async function destroyImage(desk: Desk, id: string): Promise<Row> {
  const image = await findImage(desk, id, false)
  requireMutable(desk.context, image)
  const now = desk.now()
  const gone = { deleted: true, deleted_at: now }
  await desk.update(desk.session, 'images', { ...gone, updated_at: now }, sql`id = ${id}`)
  const ofImage = sql`image_id = ${id} and ${living}`
  await desk.update(desk.session, 'image_locations', { ...gone, updated_at: now, status: 'deleted' }, ofImage)
  // Two living rows of one member are possible, and marked at the same time they would violate the unique key.
  await desk.remove(
    desk.session,
    'image_members',
    sql`${ofImage} and id not in (select latest from (select max(id) as latest from image_members
      where ${ofImage} group by member) as members)`,
  )
  for (const table of ['image_properties', 'image_members', 'image_tags'] as const)
    await desk.update(desk.session, table, gone, ofImage)
  const [deleted] = await desk.select(desk.session, 'images', sql`where id = ${id}`)
  return (await withChildren(desk, deleted === undefined ? [] : [deleted], false))[0] as Row
}

async function setProperties(
  desk: Desk,
  imageId: string,
  properties: Arguments,
  { purge, untouched }: Pick<UpdateRules, 'purge' | 'untouched'>,
): Promise<void> {
  for (const [name, value] of Object.entries(properties))
    if (!untouched.includes(name)) await setProperty(desk, imageId, name, value)
  if (!purge) return
  const gone = { deleted: true, deleted_at: desk.now() }
  for (const { id, name } of await desk.select(
    desk.session,
    'image_properties',
    sql`where image_id = ${imageId} and ${living}`,
  ))
    if (name !== null && !Object.hasOwn(properties, name) && !untouched.includes(name))
      await desk.update(desk.session, 'image_properties', gone, sql`id = ${id}`)
}

async function setProperty(desk: Desk, imageId: string, name: string, value: unknown): Promise<void> {
  const now = desk.now()
  const change = { value, deleted: false, updated_at: now }
  const where = sql`image_id = ${imageId} and name = ${name}`
  if ((await desk.update(desk.session, 'image_properties', change, where)) === 0)
    await desk.insert(desk.session, 'image_properties', { ...change, image_id: imageId, name, created_at: now })
}

const propertyOf = async (desk: Desk, imageId: string, name: string): Promise<Row | undefined> =>
  (await desk.select(desk.session, 'image_properties', sql`where image_id = ${imageId} and name = ${name}`))[0]

async function tagsOf(desk: Desk, imageId: string): Promise<readonly string[]> {
  const rows = await desk.select(desk.session, 'image_tags', sql`where image_id = ${imageId} and ${living} order by id`)
  return rows.map(({ value }) => value ?? '')
}

async function addTag(desk: Desk, imageId: string, value: string): Promise<void> {
  const now = desk.now()
  await desk.insert(desk.session, 'image_tags', {
    image_id: imageId,
    value,
    created_at: now,
    updated_at: now,
    deleted: false,
  })
}

const removeTag = (desk: Desk, imageId: string, value: string): Promise<number> =>
  desk.update(
    desk.session,
    'image_tags',
    { deleted: true, deleted_at: desk.now() },
    sql`image_id = ${imageId} and value = ${value} and ${living}`,
  )

/** The whole new list; those without an id are new. */
async function setLocations(desk: Desk, imageId: string, locations: readonly Arguments[]): Promise<void> {
  const kept = locations.flatMap((location) => (location['id'] ? [integer(location, 'id')] : []))
  const now = desk.now()
  const others = kept.length === 0 ? sql`` : sql`and id not in (${sql.join(kept)})`
  await desk.update(
    desk.session,
    'image_locations',
    { status: 'deleted', deleted: true, deleted_at: now, updated_at: now },
    sql`image_id = ${imageId} and ${living} ${others}`,
  )
  for (const location of locations) {
    if (location['id']) await updateLocation(desk, imageId, location)
    else {
      const row = locationRow(desk, location)
      await desk.insert(desk.session, 'image_locations', { ...row, image_id: imageId, created_at: now })
    }
  }
}

function locationRow(desk: Desk, location: Arguments) {
  const status = optionalText(location, 'status') ?? 'active'
  const now = desk.now()
  const deleted = ['deleted', 'pending_delete'].includes(status)
  return {
    value: text(location, 'url'),
    meta_data: location['metadata'] ?? {},
    status,
    deleted,
    deleted_at: deleted ? now : null,
    updated_at: now,
  }
}

const updateLocation = (desk: Desk, imageId: string, location: Arguments): Promise<void> =>
  changeLocation(desk, { id: integer(location, 'id'), imageId }, locationRow(desk, location))

async function changeLocation(
  desk: Desk,
  { id, imageId }: { readonly id: number; readonly imageId: string },
  change: Arguments,
): Promise<void> {
  const values = { updated_at: desk.now(), ...change }
  if ((await desk.update(desk.session, 'image_locations', values, sql`id = ${id} and image_id = ${imageId}`)) === 0)
    throw raised('NotFound', `No location found with ID ${id} from image ${imageId}`)
}
