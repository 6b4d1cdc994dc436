import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type Identity, NOBODY } from '../auth/identity.ts'
import { hasKind } from '../domain/errors.ts'
import type { ImageId, ProjectId, UserId } from '../domain/ids.ts'
import type { Image, Visibility } from '../domain/image.ts'
import {
  allowsMember,
  enforce,
  enforceImage,
  enforceMember,
  enforceNamespace,
  enforceNewImage,
  enforceVisibility,
  isMutable,
} from './enforce.ts'
import { openPolicy } from './enforcer.ts'
import { imageTarget, memberTarget, namespaceTarget } from './target.ts'

const open = (enforceNewDefaults: boolean) =>
  openPolicy({
    policyFile: '/nowhere/policy.yaml',
    policyDirs: [],
    defaultRule: 'default',
    enforceNewDefaults,
    warn: (message) => assert.fail(message),
  })
const policy = open(true)
const legacy = open(false)

const caller = (project: string, ...roles: string[]): Identity => ({
  ...NOBODY,
  userId: 'u1' as UserId,
  projectId: project as ProjectId,
  roles,
})
const owner = caller('mine', 'member', 'reader')
const reader = caller('mine', 'reader')
const stranger = caller('other', 'member', 'reader')
const admin = caller('admin', 'admin')

const image = (visibility: Visibility, properties: Readonly<Record<string, string>> = {}): Image => ({
  id: '7b7d0c5e-0000-4000-8000-000000000001' as ImageId,
  name: 'one',
  status: 'active',
  visibility,
  owner: 'mine' as ProjectId,
  protected: false,
  hidden: false,
  size: 1,
  virtualSize: null,
  minRam: 0,
  minDisk: 0,
  diskFormat: 'raw',
  containerFormat: 'bare',
  checksum: null,
  osHashAlgo: null,
  osHashValue: null,
  createdAt: new Date(0),
  updatedAt: new Date(0),
  tags: [],
  properties: new Map(Object.entries(properties)),
  locations: [],
})

const forbidden = (message: string) => (error: unknown) => hasKind(error, 'forbidden') && error.message === message
const notFound = (error: unknown) => hasKind(error, 'not-found')

describe('enforce()', () => {
  it('names the rule that denies', () => {
    enforce(policy, 'get_images', owner, { project_id: 'mine' })
    assert.throws(
      () => enforce(policy, 'cache_list', owner, {}),
      forbidden('You are not authorized to complete cache_list action.'),
    )
  })
})

describe('enforceImage()', () => {
  it('forbids what the caller may not do to an image that it sees', () => {
    enforceImage(policy, 'modify_image', owner, image('private'))
    const refusal = forbidden('You are not authorized to complete modify_image action.')
    assert.throws(() => enforceImage(policy, 'modify_image', stranger, image('public')), refusal)
    assert.throws(() => enforceImage(policy, 'modify_image', reader, image('private')), refusal)
  })

  it('says that there is no image where the caller may not see it', () => {
    assert.throws(() => enforceImage(policy, 'modify_image', stranger, image('private')), notFound)
    assert.throws(() => enforceImage(policy, 'get_image', stranger, image('private')), notFound)
  })

  it('forbids what is not the caller’s when the former defaults allow everybody', () => {
    const refusal = forbidden('You do not own this image')
    for (const rule of ['delete_image', 'modify_image', 'upload_image', 'deactivate', 'reactivate'] as const) {
      enforceImage(legacy, rule, reader, image('private'))
      enforceImage(legacy, rule, admin, image('private'))
      assert.throws(() => enforceImage(legacy, rule, stranger, image('public')), refusal)
    }
    enforceImage(legacy, 'download_image', stranger, image('public'))
  })
})

describe('isMutable()', () => {
  it('is for admins and the owner; an image without an owner is for admins', () => {
    const orphan = { ...image('public'), owner: null }
    assert.equal(isMutable(policy, owner, image('private')), true)
    assert.equal(isMutable(policy, stranger, image('private')), false)
    assert.equal(isMutable(policy, { ...owner, projectId: undefined }, orphan), false)
    assert.equal(isMutable(policy, admin, orphan), true)
  })
})

describe('enforceMember()', () => {
  it('lets the owner share and the member answer, not the other way round', () => {
    const shared = image('shared')
    enforceMember(policy, 'add_member', owner, shared)
    enforceMember(policy, 'modify_member', stranger, shared)
    assert.throws(
      () => enforceMember(policy, 'modify_member', owner, shared),
      (error) => hasKind(error, 'forbidden'),
    )
    assert.throws(
      () => enforceMember(policy, 'add_member', stranger, shared),
      (error) => hasKind(error, 'forbidden'),
    )
    assert.throws(() => enforceMember(policy, 'get_members', stranger, image('private')), notFound)
  })

  it('asks about a given member', () => {
    const shared = image('shared')
    assert.equal(allowsMember(policy, 'get_member', stranger, shared, 'other' as ProjectId), true)
    assert.equal(allowsMember(policy, 'get_member', stranger, shared, 'third' as ProjectId), false)
  })

  it('keeps to the owner checks of old when the former defaults allow everybody', () => {
    const shared = image('shared')
    enforceMember(legacy, 'add_member', owner, shared)
    enforceMember(legacy, 'modify_member', stranger, shared)
    assert.throws(() => enforceMember(legacy, 'add_member', stranger, shared), /not permitted to create image members/)
    assert.throws(() => enforceMember(legacy, 'modify_member', owner, shared), /not permitted to modify 'status'/)
    assert.throws(() => enforceMember(legacy, 'delete_member', stranger, shared), /cannot delete image member/)
    enforceMember(legacy, 'delete_member', admin, shared)
  })
})

describe('enforceNewImage()', () => {
  const mine = { owner: 'mine' as ProjectId }
  const foreign = { owner: 'other' as ProjectId }

  it('lets a member create images of its own project, and an admin any', () => {
    enforceNewImage(policy, owner, mine)
    enforceNewImage(policy, admin, { ...foreign, visibility: 'public' })
    assert.throws(
      () => enforceNewImage(policy, reader, mine),
      forbidden('You are not authorized to complete add_image action.'),
    )
    assert.throws(
      () => enforceNewImage(policy, owner, foreign),
      forbidden("You are not permitted to create images owned by 'other'"),
    )
    assert.throws(() => enforceNewImage(legacy, owner, foreign), /owned by 'other'/)
  })

  it('asks about the visibility that the client wants', () => {
    enforceNewImage(policy, owner, { ...mine, visibility: 'community' })
    assert.throws(
      () => enforceNewImage(policy, owner, { ...mine, visibility: 'public' }),
      forbidden('You are not authorized to complete publicize_image action.'),
    )
    enforceVisibility(policy, owner, 'shared', {})
  })
})

describe('enforceNamespace()', () => {
  it('hides what the caller may not see', () => {
    const open = namespaceTarget(owner, { owner: 'admin', visibility: 'public' })
    const closed = namespaceTarget(owner, { owner: 'admin', visibility: 'private' })
    enforceNamespace(policy, 'get_metadef_objects', owner, open)
    enforceNamespace(policy, 'get_metadef_namespaces', owner, namespaceTarget(owner))
    assert.throws(
      () => enforceNamespace(policy, 'add_metadef_tag', owner, open),
      (error) => hasKind(error, 'forbidden'),
    )
    assert.throws(() => enforceNamespace(policy, 'add_metadef_tag', owner, closed), notFound)
  })
})

describe('imageTarget()', () => {
  it('has the properties beside the attributes, which win', () => {
    const target = imageTarget(
      image('private', { owner: 'forged', project_id: 'forged', os: 'linux', constructor: 'x' }),
    )
    assert.equal(target['owner'], 'mine')
    assert.equal(target['project_id'], 'mine')
    assert.equal(target['os'], 'linux')
    assert.equal(target['constructor'], 'x')
  })

  it('names the caller as member of a shared image of somebody else', () => {
    assert.equal(imageTarget(image('shared'), stranger)['member_id'], 'other')
    assert.equal(imageTarget(image('shared'), owner)['member_id'], null)
    assert.equal(imageTarget(image('public'), stranger)['member_id'], null)
    assert.equal(memberTarget(image('shared'), 'third' as ProjectId)['member_id'], 'third')
  })
})
