import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import fc from 'fast-check'
import { hasKind } from '../../domain/errors.ts'
import type { ImageId, LocationUri, StoreId } from '../../domain/ids.ts'
import { newImage } from '../conformance.ts'
import type { Scope } from '../database.ts'
import { openDatabase } from './connect.ts'
import { newFile, openRaw } from './fixtures.ts'
import { isSealed, locationCipher } from './location-cipher.ts'

const KEY = '0123456789abcdef'
const ADMIN: Scope = { admin: true, project: undefined }
const uri = (text: string) => text as LocationUri

/** Made by glance.common.crypt of Glance 33.0.0; keys count in bytes. */
const UPSTREAM = [
  [KEY, 'file:///srv/images/1', 'Omu4TWoyYvBfyTjWpbyvVc4jIXHzkK5h1aAra00VT79FVbDQU04SVNrqeQddsJO6'],
  [
    '0123456789abcdefghijklmn',
    'swift+http://user:p%40ss@host/ü/1',
    'bYuKBvidvnhkLXrVE2LAfTwgtB2ytZ-lWx7dScEZBwWXnbS2h75KjYXlzH504ojG69IS9dVi_KPWkLXzK6w5YQ==',
  ],
  [
    '0123456789abcdefghijklmnopqrstü',
    'file:///srv/images/1',
    'tAfjc1z9RwKahU-qkyTZNZTo2bMw4yns3oiAagyK8PBiiOkQ8DKlVRkbltwF819v',
  ],
] as const

describe('locations that are encrypted in the database', () => {
  it('what upstream has encrypted is read', () => {
    for (const [key, plain, sealed] of UPSTREAM) {
      assert.ok(isSealed(sealed))
      assert.equal(locationCipher(key).open(sealed), plain)
    }
  })

  it('every location comes back, and is another text each time', () => {
    const cipher = locationCipher('0123456789abcdefghijklmn')
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (path) => {
        const plain = uri(`file:///${path.toWellFormed().replaceAll('\0', '')}`)
        const sealed = cipher.seal(plain)
        assert.ok(isSealed(sealed))
        assert.notEqual(cipher.seal(plain), sealed)
        assert.equal(cipher.open(sealed), plain)
      }),
    )
  })

  it('a location from before the key is read as it is', () => {
    for (const plain of ['file:///srv/images/1', 'rbd://a/b/c/snap', 'http://host/x'])
      assert.equal(locationCipher(KEY).open(plain), plain)
  })

  it('without the key, or with another one, no location is made up', () => {
    for (const [, , sealed] of UPSTREAM) {
      assert.equal(locationCipher(undefined).open(sealed), sealed)
      assert.equal(locationCipher('another key of16').open(sealed), sealed)
    }
  })

  it('a key of another length is refused', () => {
    assert.throws(
      () => locationCipher('short'),
      (error) => hasKind(error, 'invalid'),
    )
  })
})

describe('a database with encrypted locations', () => {
  const fresh = async (t: TestContext) => {
    const file = await newFile(t)
    const connection = `sqlite:///${file}`
    const db = await openDatabase({ connection, metadata_encryption_key: KEY })
    t.after(() => db.close())
    return { connection, db, raw: openRaw(t, file) }
  }
  const located = (plain: string) => ({ uri: uri(plain), store: 'fast' as StoreId, metadata: {} })

  it('has no plain location in it', async (t) => {
    const { db, raw } = await fresh(t)
    const { id } = await db.images.insert(newImage())
    const at = located('file:///a')
    assert.deepEqual((await db.images.update(id, { addLocations: [at] }, ['queued'])).locations, [at])
    const rows = raw.prepare('select value, meta_data from image_locations').all()
    assert.equal(rows.length, 1)
    assert.ok(isSealed(String(rows[0]?.['value'])))
    assert.equal(rows[0]?.['meta_data'], '{"store":"fast"}')
  })

  it('rows that upstream encrypts anew with each save are the same locations', async (t) => {
    const { db, raw } = await fresh(t)
    const { id } = await db.images.insert(newImage())
    const [first, second, third] = ['file:///1', 'file:///2', 'file:///3'].map(located) as [
      ReturnType<typeof located>,
      ReturnType<typeof located>,
      ReturnType<typeof located>,
    ]
    const from = (await db.images.update(id, { addLocations: [first, second] }, ['queued'])).locations
    const cipher = locationCipher(KEY)
    for (const [row, { uri }] of [first, second].entries())
      raw.prepare('update image_locations set value = ? where id = ?').run(cipher.seal(uri), row + 1)
    const to = [{ ...second, metadata: { a: 'b' } }, third]
    assert.deepEqual((await db.images.update(id, { locations: { from, to } }, ['queued'])).locations, to)
    assert.deepEqual(await db.images.undropped(10), [{ id, location: first }])

    raw.prepare('update image_locations set value = ? where id = 1').run(cipher.seal(first.uri))
    await db.images.restoreLocation(id, first.uri)
    assert.deepEqual(await db.images.undropped(10), [])
    await db.images.remove(id, ['queued'])
    for (const { location } of await db.images.undropped(10)) await db.images.dropLocation(id, location.uri)
    assert.deepEqual(await db.images.undropped(10), [])
    const statuses = raw.prepare('select distinct status from image_locations').all()
    assert.deepEqual(
      statuses.map(({ status }) => status),
      ['deleted'],
    )
  })

  it('is not opened with another key', async (t) => {
    const { connection, db } = await fresh(t)
    const { id } = await db.images.insert(newImage())
    await db.images.update(id, { addLocations: [located('file:///1')] }, ['queued'])
    const opening = openDatabase({ connection, metadata_encryption_key: 'another key of16' })
    await assert.rejects(opening, (error) => hasKind(error, 'invalid'))
  })

  it('shows images without the key, and what it cannot read of their locations as it is', async (t) => {
    const { connection, db } = await fresh(t)
    const { id } = await db.images.insert(newImage())
    await db.images.update(id, { addLocations: [located('file:///1')] }, ['queued'])
    const keyless = await openDatabase({ connection })
    t.after(() => keyless.close())
    const image = await keyless.images.get(id as ImageId, ADMIN)
    assert.ok(image.locations.every(({ uri }) => isSealed(uri)))
  })
})
