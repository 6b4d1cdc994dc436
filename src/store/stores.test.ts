import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { hasKind } from '../domain/errors.ts'
import type { LocationUri, StoreId } from '../domain/ids.ts'
import type { Location } from '../domain/image.ts'
import type { StoreDriver } from './driver.ts'
import { openMemoryDriver } from './drivers/memory.ts'
import { openStores, type StoresSetup } from './stores.ts'

const withScheme = (scheme: string, write = true): StoreDriver => ({
  ...openMemoryDriver(),
  schemes: [scheme],
  features: { write, randomRead: true, unsizedWrite: true },
})
const at = (uri: string, store?: string): Location => ({
  uri: uri as LocationUri,
  store: store as StoreId | undefined,
  metadata: {},
})

function open(t: TestContext, change: Partial<StoresSetup> = {}) {
  const stores = openStores({
    multi: true,
    defaultStore: 'fast',
    stores: [
      { id: 'cheap', driver: withScheme('s3'), weight: 10, description: 'Slow but cheap' },
      { id: 'fast', driver: withScheme('file'), weight: 20 },
      { id: 'web', driver: withScheme('https', false) },
      { id: 'os_glance_staging_store', driver: withScheme('file') },
    ],
    ...change,
  })
  t.after(() => stores.close())
  return stores
}

describe('stores', () => {
  it('selects by name, and the default without one', (t) => {
    const stores = open(t)
    assert.equal(stores.select('cheap').id, 'cheap')
    assert.equal(stores.select().id, 'fast')
    assert.equal(stores.default.id, 'fast')
  })

  it('knows no store of an unknown or reserved name', (t) => {
    const stores = open(t)
    for (const name of ['slow', '', 'os_glance_staging_store']) {
      assert.throws(
        () => stores.select(name),
        (error) => hasKind(error, 'invalid') && error.message === `Store for identifier ${name} not found`,
      )
    }
  })

  it('ignores names where there is a single store', (t) => {
    const stores = open(t, { multi: false, defaultStore: 'file', stores: [{ id: 'file', driver: withScheme('file') }] })
    assert.equal(stores.select('whatever').id, 'file')
    assert.equal(stores.holding(at('file:///1', 'fast')).id, 'file')
    assert.equal(stores.multi, false)
  })

  it('lists what clients may know of in the order of the configuration', (t) => {
    assert.deepEqual(
      open(t).all.map(({ id, type, description, weight, readOnly }) => ({ id, type, description, weight, readOnly })),
      [
        { id: 'cheap', type: 's3', description: 'Slow but cheap', weight: 10, readOnly: false },
        { id: 'fast', type: 'file', description: undefined, weight: 20, readOnly: false },
        { id: 'web', type: 'https', description: undefined, weight: 0, readOnly: true },
      ],
    )
  })

  it('finds the store that holds a location by name, and by scheme where it has none', (t) => {
    const stores = open(t)
    assert.equal(stores.holding(at('file:///1', 'cheap')).id, 'cheap')
    assert.equal(stores.holding(at('file:///1')).id, 'fast')
    assert.equal(stores.holding(at('S3://bucket/1')).id, 'cheap')
    assert.equal(stores.holding(at('file:///1', 'os_glance_staging_store')).id, 'os_glance_staging_store')
    assert.equal(stores.byId('os_glance_staging_store' as StoreId)?.id, 'os_glance_staging_store')
    for (const location of [at('rbd://pool/1'), at('file:///1', 'gone'), at('sealed'), at('sealed', 'fast')]) {
      assert.throws(
        () => stores.holding(location),
        (error) => hasKind(error, 'unavailable'),
      )
    }
  })

  it('reads from the heaviest store first, and from equals as they are stored', (t) => {
    const stores = open(t)
    const locations = [
      at('https://a', 'web'),
      at('rbd://unknown'),
      at('s3://b', 'cheap'),
      at('file://c', 'fast'),
      at('s3://d'),
    ]
    assert.deepEqual(
      stores.inReadingOrder(locations).map(({ uri }) => uri),
      ['file://c', 's3://b', 's3://d', 'https://a', 'rbd://unknown'],
    )
  })

  it('needs a default that is one of them', (t) => {
    for (const defaultStore of ['slow', 'os_glance_staging_store']) {
      assert.throws(
        () => open(t, { defaultStore }),
        (error) => hasKind(error, 'invalid'),
      )
    }
  })

  it('closes every driver', async (t) => {
    const driver = withScheme('file')
    await open(t, { defaultStore: 'one', stores: [{ id: 'one', driver }] }).close()
    const { signal } = new AbortController()
    await assert.rejects(driver.stat('memory://1' as LocationUri, { signal }), (error) => hasKind(error, 'unavailable'))
  })
})
