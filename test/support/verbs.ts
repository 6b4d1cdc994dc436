import { newImage } from '../../src/db/conformance.ts'
import type { Claim, Database, Job, JobStart, NewTask, Worker } from '../../src/db/database.ts'
import type {
  AttemptId,
  ImageId,
  LocationUri,
  ProjectId,
  StoreId,
  TaskId,
  UserId,
  WorkerId,
} from '../../src/domain/ids.ts'

/** Something that writes to a database, in a setting that is the same each time. */
export interface Verb {
  readonly name: string
  readonly before?: (db: Database) => Promise<unknown>
  readonly run: (db: Database) => Promise<unknown>
}

const IMAGE = '11111111-1111-4111-8111-111111111111' as ImageId
const MEMBER = 'friends' as ProjectId
const WORKER: Worker = { id: 'worker-1' as WorkerId, node: 'node-1', pid: 4711, startedAt: 123_456 }
const HEIR = 'worker-2' as WorkerId
const URI = 'file:///data' as LocationUri
const LOCATION = { uri: URI, store: 'fast' as StoreId, metadata: { n: 1 } }
const CLAIM: Claim = {
  attempt: 'attempt' as AttemptId,
  imageId: IMAGE,
  worker: WORKER.id,
  store: 'fast' as StoreId,
}
const IMAGE_ROW = newImage({ id: IMAGE, tags: ['old', 'kept'], properties: new Map([['p', 'old']]) })
const TASK: NewTask = {
  id: '22222222-2222-4222-8222-222222222222' as TaskId,
  type: 'api_image_import',
  owner: 'owner' as ProjectId,
  input: { backend: ['fast'] },
  imageId: IMAGE,
  requestId: 'req-1',
  userId: 'user' as UserId,
}
const START: JobStart = {
  task: TASK,
  image: IMAGE,
  worker: WORKER.id,
  context: { roles: ['member'] },
  change: { image: { status: 'importing' }, from: ['queued'], task: { status: 'processing' } },
  preempted: { status: 'failure' },
}
const JOB: Job = { task: TASK.id, imageId: IMAGE, worker: WORKER.id, tries: 1, context: START.context }

const NAMESPACE = {
  name: 'N',
  displayName: null,
  description: null,
  visibility: 'public',
  protected: false,
  owner: 'owner' as ProjectId,
} as const
const object = (name: string) => ({ name, description: null, required: [], properties: new Map() })
const tag = (name: string) => ({ name })
const association = (name: string) => ({ name, prefix: null, target: null })
const DRAFTS = {
  objects: [object('o1'), object('o2')],
  properties: [{ name: 'p', schema: { title: 'A', type: 'string' } }],
  tags: [tag('t')],
  associations: [association('OS::Nova::Flavor')],
}
const CACHED = {
  imageId: IMAGE,
  size: 3,
  hits: 0,
  lastAccessed: new Date(0),
  lastModified: new Date(0),
  checksum: null,
}

const insert = (db: Database) => db.images.insert(IMAGE_ROW)
const locate = async (db: Database) => {
  await insert(db)
  await db.images.update(IMAGE, { status: 'active', addLocations: [LOCATION] }, ['queued'])
}
const letGo = async (db: Database) => {
  await locate(db)
  await db.images.update(IMAGE, { locations: { from: [LOCATION], to: [] } }, ['active'])
}
const claim = async (db: Database) => {
  await insert(db)
  await db.workers.renew(WORKER, 1000)
  await db.images.claim(CLAIM)
}
const befriend = async (db: Database) => {
  await insert(db)
  await db.members.add(IMAGE, MEMBER, -1)
}
const begin = async (db: Database) => {
  await insert(db)
  await db.jobs.begin(START)
}
const describe = (db: Database) => db.metadefs.insert(NAMESPACE, DRAFTS)
const node = (db: Database) => db.cached.addNode('http://one')
const cache = async (db: Database) => {
  await node(db)
  await db.cached.put('http://one', CACHED)
}

/** Every method of `Database` that writes. */
export const VERBS: readonly Verb[] = [
  { name: 'images.insert', run: insert },
  {
    name: 'images.update',
    before: locate,
    run: (db) =>
      db.images.update(
        IMAGE,
        {
          name: 'new',
          tags: ['kept', 'new'],
          setProperties: new Map([['q', 'new']]),
          unsetProperties: ['p'],
          locations: { from: [LOCATION], to: [LOCATION, { ...LOCATION, uri: 'file:///more' as LocationUri }] },
          storageLimit: 1000,
        },
        ['active'],
      ),
  },
  { name: 'images.addTag', before: insert, run: (db) => db.images.addTag(IMAGE, 'new', 10) },
  { name: 'images.removeTag', before: insert, run: (db) => db.images.removeTag(IMAGE, 'old') },
  { name: 'images.remove', before: locate, run: (db) => db.images.remove(IMAGE, ['active']) },
  { name: 'images.dropLocation', before: letGo, run: (db) => db.images.dropLocation(IMAGE, URI) },
  { name: 'images.restoreLocation', before: letGo, run: (db) => db.images.restoreLocation(IMAGE, URI) },
  { name: 'images.claim', before: insert, run: (db) => db.images.claim(CLAIM, { uploadingLimit: 5 }) },
  {
    name: 'images.settle',
    before: claim,
    run: (db) =>
      db.images.settle(CLAIM, { status: 'active', size: 3, locations: { from: [], to: [LOCATION] }, storageLimit: 10 }),
  },
  { name: 'members.add', before: insert, run: (db) => db.members.add(IMAGE, MEMBER, 5) },
  { name: 'members.setStatus', before: befriend, run: (db) => db.members.setStatus(IMAGE, MEMBER, 'accepted') },
  { name: 'members.remove', before: befriend, run: (db) => db.members.remove(IMAGE, MEMBER) },
  { name: 'workers.renew', run: (db) => db.workers.renew(WORKER, 1000) },
  { name: 'workers.takeOver', before: claim, run: (db) => db.workers.takeOver(CLAIM, HEIR) },
  { name: 'workers.remove', before: (db) => db.workers.renew(WORKER, 0), run: (db) => db.workers.remove(WORKER.id) },
  { name: 'tasks.insert', run: (db) => db.tasks.insert(TASK, { message: 'm' }) },
  {
    name: 'tasks.update',
    before: (db) => db.tasks.insert(TASK),
    run: (db) => db.tasks.update(TASK.id, { status: 'processing', message: 'm' }, ['pending']),
  },
  {
    name: 'tasks.forgetExpired',
    before: (db) => db.tasks.insert(TASK, { keepMs: -5000 }),
    run: (db) => db.tasks.forgetExpired(),
  },
  { name: 'jobs.begin', before: insert, run: (db) => db.jobs.begin(START) },
  {
    name: 'jobs.advance',
    before: begin,
    run: (db) => db.jobs.advance(JOB, { image: { addLocations: [LOCATION] }, task: { message: 'm' } }),
  },
  {
    name: 'jobs.finish',
    before: begin,
    run: (db) => db.jobs.finish(JOB, { image: { status: 'active' }, task: { status: 'success', keepMs: 60_000 } }),
  },
  { name: 'jobs.takeOver', before: begin, run: (db) => db.jobs.takeOver(JOB, HEIR) },
  { name: 'metadefs.insert', run: describe },
  {
    name: 'metadefs.replace',
    before: describe,
    run: (db) => db.metadefs.replace('N', { ...NAMESPACE, description: 'new' }),
  },
  { name: 'metadefs.remove', before: describe, run: (db) => db.metadefs.remove('N') },
  {
    name: 'metadefs.load',
    before: describe,
    run: (db) => db.metadefs.load(NAMESPACE, { ...DRAFTS, objects: [object('o1'), object('o3')] }, 'merge'),
  },
  { name: 'metadefs.clear', before: describe, run: (db) => db.metadefs.clear() },
  { name: 'objects.insert', before: describe, run: (db) => db.metadefs.objects.insert('N', object('o3')) },
  { name: 'objects.replace', before: describe, run: (db) => db.metadefs.objects.replace('N', 'o1', object('o3')) },
  { name: 'objects.remove', before: describe, run: (db) => db.metadefs.objects.remove('N', 'o1') },
  { name: 'objects.clear', before: describe, run: (db) => db.metadefs.objects.clear('N') },
  {
    name: 'tags.insertAll',
    before: describe,
    run: (db) => db.metadefs.tags.insertAll('N', [tag('a'), tag('b')], 'append'),
  },
  {
    name: 'associations.insert',
    before: describe,
    run: (db) => db.metadefs.associations.insert('N', association('OS::Glance::Image')),
  },
  {
    name: 'associations.remove',
    before: describe,
    run: (db) => db.metadefs.associations.remove('N', 'OS::Nova::Flavor'),
  },
  { name: 'cached.addNode', run: node },
  { name: 'cached.put', before: node, run: (db) => db.cached.put('http://one', CACHED) },
  { name: 'cached.touch', before: cache, run: (db) => db.cached.touch('http://one', CACHED) },
  { name: 'cached.remove', before: cache, run: (db) => db.cached.remove('http://one', IMAGE) },
]
