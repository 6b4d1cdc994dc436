/** A rule that the service asks for. */
export interface Rule {
  /** The default, in the policy language. */
  readonly check: string
  readonly help: string
  /** What a caller does when the rule is asked. */
  readonly operations: readonly string[]
  /** The former default, which `enforce_new_defaults = false` allows as well. */
  readonly deprecated?: string
  /** A part of other rules. All others are refused to tokens that are scoped to no project. */
  readonly anyScope?: true
}

const ADMIN = 'rule:context_is_admin'
const DEFAULT = 'rule:default'
const SERVICE = 'rule:service_api'
const MEMBER = 'role:member and project_id:%(project_id)s'
const READER = 'role:reader and project_id:%(project_id)s'
const SHARED_WITH = 'project_id:%(member_id)s'
const PUBLIC = "'public':%(visibility)s"
const VISIBLE = `(project_id:%(project_id)s or ${SHARED_WITH} or 'community':%(visibility)s or ${PUBLIC} or 'shared':%(visibility)s)`

const ADMIN_OR_MEMBER = `${ADMIN} or (${MEMBER})`
const ADMIN_OR_READER = `${ADMIN} or (${READER})`
const ADMIN_OR_DOWNLOADER = `${ADMIN} or (role:member and ${VISIBLE})`
const ADMIN_OR_READER_OF_MEMBERS = `${ADMIN} or role:reader and (project_id:%(project_id)s or ${SHARED_WITH})`
const ADMIN_OR_READER_OF_NAMESPACE = `${ADMIN} or (role:reader and (project_id:%(project_id)s or ${PUBLIC}))`

const METADEF_ADMIN = 'rule:metadef_admin'
const METADEF_DEFAULT = 'rule:metadef_default'
const NAMESPACES = '/v2/metadefs/namespaces'
const NAMESPACE = `${NAMESPACES}/{namespace_name}`

const imageMember = (help: string, ...operations: string[]) =>
  ({ check: ADMIN_OR_MEMBER, help, operations, deprecated: DEFAULT }) as const satisfies Rule
const admin = (help: string, ...operations: string[]) => ({ check: ADMIN, help, operations }) as const satisfies Rule
const formerlyCacheAdmin = (help: string, ...operations: string[]) =>
  ({ check: ADMIN, help, operations, deprecated: 'rule:manage_image_cache' }) as const satisfies Rule
const namespaceReader = (help: string, ...operations: string[]) =>
  ({ check: ADMIN_OR_READER_OF_NAMESPACE, help, operations, deprecated: METADEF_DEFAULT }) as const satisfies Rule
const metadefAdmin = (help: string, ...operations: string[]) =>
  ({ check: METADEF_ADMIN, help, operations }) as const satisfies Rule
const unasked = (help: string) =>
  ({
    check: DEFAULT,
    help: `${help} Not asked anywhere; known so that files which name it stay valid.`,
    operations: [],
  }) as const satisfies Rule

/** Every rule with its default. Operators override them by name in policy.yaml. */
export const RULES = {
  default: {
    check: '',
    help: 'Stands in for rules that are not defined.',
    operations: [],
    deprecated: ADMIN,
    anyScope: true,
  },
  context_is_admin: {
    check: 'role:admin',
    help: 'Who is an administrator of the service.',
    operations: [],
    anyScope: true,
  },
  service_api: {
    check: 'role:service or role:admin',
    help: 'Who is another service of the cloud.',
    operations: [],
    anyScope: true,
  },

  cache_image: formerlyCacheAdmin('Queue an image for caching.', 'PUT /v2/cache/{image_id}'),
  cache_list: formerlyCacheAdmin('List cached and queued images.', 'GET /v2/cache'),
  cache_delete: formerlyCacheAdmin(
    'Remove one image or all from the cache or its queue.',
    'DELETE /v2/cache',
    'DELETE /v2/cache/{image_id}',
  ),
  cache_clean: admin('Remove what broken or stalled downloads left in the cache.', 'POST /v2/cache/clean'),
  cache_prune: admin('Evict images until the cache is within its size.', 'POST /v2/cache/prune'),

  stores_info_detail: {
    check: `${ADMIN} or ${SERVICE}`,
    help: 'See how the stores are configured.',
    operations: ['GET /v2/info/stores/detail'],
    deprecated: ADMIN,
  },

  add_image: {
    check: `${ADMIN} or (${MEMBER} and project_id:%(owner)s)`,
    help: 'Create an image.',
    operations: ['POST /v2/images'],
    deprecated: DEFAULT,
  },
  delete_image: imageMember('Delete an image.', 'DELETE /v2/images/{image_id}'),
  get_image: {
    check: `${ADMIN} or (role:reader and ${VISIBLE})`,
    help: 'See an image. Whoever may not is told that there is none.',
    operations: ['GET /v2/images/{image_id}'],
    deprecated: DEFAULT,
  },
  get_images: { check: ADMIN_OR_READER, help: 'List images.', operations: ['GET /v2/images'], deprecated: DEFAULT },
  modify_image: imageMember('Change an image.', 'PATCH /v2/images/{image_id}'),
  publicize_image: admin('Make an image public.', 'PATCH /v2/images/{image_id}'),
  communitize_image: imageMember('Make an image a community image.', 'PATCH /v2/images/{image_id}'),
  download_image: {
    check: ADMIN_OR_DOWNLOADER,
    help: 'Download image data.',
    operations: ['GET /v2/images/{image_id}/file'],
    deprecated: DEFAULT,
  },
  download_from_store: {
    check: ADMIN_OR_DOWNLOADER,
    help: 'Download image data from a store of the caller’s choice.',
    operations: ['GET /v2/images/{image_id}/file'],
  },
  upload_image: imageMember('Upload image data.', 'PUT /v2/images/{image_id}/file'),
  delete_image_location: {
    check: ADMIN,
    help: 'Remove a location of an image.',
    operations: ['PATCH /v2/images/{image_id}'],
    deprecated: DEFAULT,
  },
  get_image_location: {
    check: ADMIN_OR_READER,
    help: 'See the locations of an image in its document.',
    operations: ['GET /v2/images/{image_id}'],
    deprecated: DEFAULT,
  },
  set_image_location: imageMember('Set the locations of an image.', 'PATCH /v2/images/{image_id}'),
  add_image_location: {
    check: `${SERVICE} or (${MEMBER} and project_id:%(owner)s)`,
    help: 'Add a location to an image.',
    operations: ['POST /v2/images/{image_id}/locations'],
  },
  fetch_image_location: {
    check: SERVICE,
    help: 'List the locations of an image.',
    operations: ['GET /v2/images/{image_id}/locations'],
  },
  add_member: imageMember('Share an image with a project.', 'POST /v2/images/{image_id}/members'),
  delete_member: imageMember(
    'Stop sharing an image with a project.',
    'DELETE /v2/images/{image_id}/members/{member_id}',
  ),
  get_member: {
    check: ADMIN_OR_READER_OF_MEMBERS,
    help: 'See one member of an image.',
    operations: ['GET /v2/images/{image_id}/members/{member_id}'],
    deprecated: DEFAULT,
  },
  get_members: {
    check: ADMIN_OR_READER_OF_MEMBERS,
    help: 'List the members of an image.',
    operations: ['GET /v2/images/{image_id}/members'],
    deprecated: DEFAULT,
  },
  modify_member: {
    check: `${ADMIN} or (role:member and ${SHARED_WITH})`,
    help: 'Accept or reject an image that is shared with the caller’s project.',
    operations: ['PUT /v2/images/{image_id}/members/{member_id}'],
    deprecated: DEFAULT,
  },
  manage_image_cache: admin('The one rule of the cache from before it had several.'),
  deactivate: imageMember('Deactivate an image.', 'POST /v2/images/{image_id}/actions/deactivate'),
  reactivate: imageMember('Reactivate an image.', 'POST /v2/images/{image_id}/actions/reactivate'),
  copy_image: admin('Copy the data of an image to further stores.', 'POST /v2/images/{image_id}/import'),
  list_cached_nodes: admin('List the nodes that hold an image in their cache.', 'GET /v2/cache/nodes/{image_id}'),

  metadef_default: {
    check: '',
    help: 'Who might read metadata definitions before they knew projects.',
    operations: [],
    anyScope: true,
  },
  metadef_admin: { check: ADMIN, help: 'Who may change metadata definitions.', operations: [], anyScope: true },
  get_metadef_namespace: namespaceReader('See a namespace.', `GET ${NAMESPACE}`),
  get_metadef_namespaces: {
    check: ADMIN_OR_READER,
    help: 'List namespaces.',
    operations: [`GET ${NAMESPACES}`],
    deprecated: METADEF_DEFAULT,
  },
  modify_metadef_namespace: metadefAdmin('Change a namespace.', `PUT ${NAMESPACE}`),
  add_metadef_namespace: metadefAdmin('Create a namespace.', `POST ${NAMESPACES}`),
  delete_metadef_namespace: metadefAdmin('Delete a namespace.', `DELETE ${NAMESPACE}`),
  get_metadef_object: namespaceReader('See an object of a namespace.', `GET ${NAMESPACE}/objects/{object_name}`),
  get_metadef_objects: namespaceReader('List the objects of a namespace.', `GET ${NAMESPACE}/objects`),
  modify_metadef_object: metadefAdmin('Change an object of a namespace.', `PUT ${NAMESPACE}/objects/{object_name}`),
  add_metadef_object: metadefAdmin('Create an object in a namespace.', `POST ${NAMESPACE}/objects`),
  delete_metadef_object: metadefAdmin('Delete an object of a namespace.', `DELETE ${NAMESPACE}/objects/{object_name}`),
  list_metadef_resource_types: namespaceReader('List resource types.', 'GET /v2/metadefs/resource_types'),
  get_metadef_resource_type: namespaceReader(
    'List the resource types that a namespace is for.',
    `GET ${NAMESPACE}/resource_types`,
  ),
  add_metadef_resource_type_association: metadefAdmin(
    'Say that a namespace is for a resource type.',
    `POST ${NAMESPACE}/resource_types`,
  ),
  remove_metadef_resource_type_association: metadefAdmin(
    'Say that a namespace is no longer for a resource type.',
    `DELETE ${NAMESPACE}/resource_types/{name}`,
  ),
  get_metadef_property: namespaceReader(
    'See a property of a namespace.',
    `GET ${NAMESPACE}/properties/{property_name}`,
  ),
  get_metadef_properties: namespaceReader('List the properties of a namespace.', `GET ${NAMESPACE}/properties`),
  modify_metadef_property: metadefAdmin(
    'Change a property of a namespace.',
    `PUT ${NAMESPACE}/properties/{property_name}`,
  ),
  add_metadef_property: metadefAdmin('Create a property in a namespace.', `POST ${NAMESPACE}/properties`),
  remove_metadef_property: metadefAdmin(
    'Delete a property of a namespace.',
    `DELETE ${NAMESPACE}/properties/{property_name}`,
  ),
  get_metadef_tag: namespaceReader('See a tag of a namespace.', `GET ${NAMESPACE}/tags/{tag_name}`),
  get_metadef_tags: namespaceReader('List the tags of a namespace.', `GET ${NAMESPACE}/tags`),
  modify_metadef_tag: metadefAdmin('Rename a tag of a namespace.', `PUT ${NAMESPACE}/tags/{tag_name}`),
  add_metadef_tag: metadefAdmin('Create a tag in a namespace.', `POST ${NAMESPACE}/tags/{tag_name}`),
  add_metadef_tags: metadefAdmin('Create or replace the tags of a namespace.', `POST ${NAMESPACE}/tags`),
  delete_metadef_tag: metadefAdmin('Delete a tag of a namespace.', `DELETE ${NAMESPACE}/tags/{tag_name}`),
  delete_metadef_tags: metadefAdmin('Delete all tags of a namespace.', `DELETE ${NAMESPACE}/tags`),

  get_task: unasked('Read a task.'),
  get_tasks: unasked('List tasks.'),
  add_task: unasked('Start a task.'),
  modify_task: unasked('Change a task.'),
  tasks_api_access: admin(
    'Use the task API.',
    'GET /v2/tasks/{task_id}',
    'GET /v2/tasks',
    'POST /v2/tasks',
    'DELETE /v2/tasks/{task_id}',
  ),
} as const satisfies Record<string, Rule>

export type RuleName = keyof typeof RULES
