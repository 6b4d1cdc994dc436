// The JSON schemas that are served at /v2/schemas and validate what clients send.

import { TASK_TRANSITIONS, TASK_TYPES } from '../../domain/task.ts'
import type { JsonSchema } from '../http/route.ts'

const UUID_PATTERN = '^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$'

/** What an operator adds to images in schema-image.json. */
export interface CustomProperties {
  readonly properties: Readonly<Record<string, JsonSchema>>
  readonly required?: readonly string[]
}

export interface SchemaOptions {
  readonly diskFormats: readonly string[]
  readonly containerFormats: readonly string[]
  readonly custom: CustomProperties
}

export interface Schemas {
  readonly image: JsonSchema
  readonly images: JsonSchema
  readonly member: JsonSchema
  readonly members: JsonSchema
  readonly task: JsonSchema
  readonly tasks: JsonSchema
}

const text = (description: string) => ({ type: 'string', description })
const bootFile = (what: string) => ({
  type: ['null', 'string'],
  pattern: UUID_PATTERN,
  description: `Id of the image that is the ${what} when this one is booted as an AMI`,
})

/** What upstream's packages declare in schema-image.json; an operator's file takes its place. */
export const COMMON_PROPERTIES: CustomProperties = {
  properties: {
    kernel_id: bootFile('kernel'),
    ramdisk_id: bootFile('ramdisk'),
    instance_uuid: text('Id of the server that the image was made of; it is only noted'),
    architecture: text('Processor architecture that the operating system needs'),
    os_distro: text('Common name of the distribution of the operating system, in lower case'),
    os_version: text('Version of the operating system as its distributor states it'),
    description: text('What a person would want to know of the image'),
    cinder_encryption_key_id: text('Id of the key, in the key manager, of volumes made of the image'),
    cinder_encryption_key_deletion_policy: {
      ...text('Whether the key is deleted together with the image'),
      enum: ['on_image_deletion', 'do_not_delete'],
    },
  },
}

const nullable = (maxLength: number, description: string) => ({ type: ['null', 'string'], description, maxLength })
const readOnly = <T extends object>(schema: T) => ({ ...schema, readOnly: true })

const imageProperties = ({ diskFormats, containerFormats }: SchemaOptions) => ({
  id: { type: 'string', description: 'An identifier for the image', pattern: UUID_PATTERN },
  name: nullable(255, 'Descriptive name for the image'),
  status: readOnly({
    type: 'string',
    description: 'Status of the image',
    enum: [
      'queued',
      'saving',
      'active',
      'killed',
      'deleted',
      'uploading',
      'importing',
      'pending_delete',
      'deactivated',
    ],
  }),
  visibility: {
    type: 'string',
    description: 'Scope of image accessibility',
    enum: ['community', 'public', 'private', 'shared'],
  },
  protected: { type: 'boolean', description: 'If true, image will not be deletable.' },
  os_hidden: { type: 'boolean', description: 'If true, image will not appear in default image list response.' },
  checksum: readOnly(nullable(32, 'md5 hash of image contents.')),
  os_hash_algo: readOnly(nullable(64, 'Algorithm to calculate the os_hash_value')),
  os_hash_value: readOnly(
    nullable(128, 'Hexdigest of the image contents using the algorithm specified by the os_hash_algo'),
  ),
  owner: nullable(255, 'Owner of the image'),
  size: readOnly({ type: ['null', 'integer'], description: 'Size of image file in bytes' }),
  virtual_size: readOnly({ type: ['null', 'integer'], description: 'Virtual size of image in bytes' }),
  container_format: {
    type: ['null', 'string'],
    description: 'Format of the container',
    enum: [null, ...containerFormats],
  },
  disk_format: { type: ['null', 'string'], description: 'Format of the disk', enum: [null, ...diskFormats] },
  created_at: readOnly({ type: 'string', description: 'Date and time of image registration' }),
  updated_at: readOnly({ type: 'string', description: 'Date and time of the last image modification' }),
  tags: {
    type: 'array',
    description: 'List of strings related to the image',
    items: { type: 'string', maxLength: 255 },
  },
  direct_url: readOnly({ type: 'string', description: 'URL to access the image file kept in external store' }),
  min_ram: { type: 'integer', description: 'Amount of ram (in MB) required to boot image.' },
  min_disk: { type: 'integer', description: 'Amount of disk space (in GB) required to boot image.' },
  self: readOnly({ type: 'string', description: 'An image self url' }),
  file: readOnly({ type: 'string', description: 'An image file url' }),
  stores: readOnly({
    type: 'string',
    description:
      'Store in which image data resides.  Only present when the operator has enabled multiple stores.  May be a comma-separated list of store identifiers.',
  }),
  schema: readOnly({ type: 'string', description: 'An image schema url' }),
  locations: {
    type: 'array',
    items: {
      type: 'object',
      properties: {
        url: { type: 'string', maxLength: 255 },
        metadata: { type: 'object' },
        validation_data: {
          description:
            "Values to be used to populate the corresponding image properties. If the image status is not 'queued', values must exactly match those already contained in the image properties.",
          type: 'object',
          writeOnly: true,
          additionalProperties: false,
          properties: {
            checksum: { type: 'string', minLength: 32, maxLength: 32 },
            os_hash_algo: { type: 'string', maxLength: 64 },
            os_hash_value: { type: 'string', maxLength: 128 },
          },
          required: ['os_hash_algo', 'os_hash_value'],
        },
      },
      required: ['url', 'metadata'],
    },
    description: 'A set of URLs to access the image file kept in external store',
  },
})

const memberProperties = {
  created_at: { type: 'string', description: 'Date and time of image member creation' },
  image_id: { type: 'string', description: 'An identifier for the image', pattern: UUID_PATTERN },
  member_id: { type: 'string', description: 'An identifier for the image member (tenantId)' },
  schema: { readOnly: true, type: 'string' },
  status: { type: 'string', description: 'The status of this image member', enum: ['pending', 'accepted', 'rejected'] },
  updated_at: { type: 'string', description: 'Date and time of last modification of image member' },
}

const taskProperties = {
  id: { type: 'string', description: 'An identifier for the task', pattern: UUID_PATTERN },
  type: { type: 'string', description: 'What kind of task it is', enum: TASK_TYPES },
  status: { type: 'string', description: 'How far it is', enum: Object.keys(TASK_TRANSITIONS) },
  owner: text('An identifier for the owner of this task'),
  image_id: text('The image that it is about'),
  request_id: text('The request that asked for it'),
  user_id: text('The user who asked for it'),
  expires_at: { type: ['null', 'string'], description: 'When it will be forgotten' },
  created_at: text('Date and time of task creation'),
  updated_at: text('Date and time of the last change'),
  self: { readOnly: true, type: 'string' },
  schema: { readOnly: true, type: 'string' },
}
/** What a list leaves out. */
const taskDetails = {
  input: { type: ['null', 'object'], description: 'What was asked for, as JSON' },
  result: { type: ['null', 'object'], description: 'What came of it, as JSON' },
  message: text('A word to the owner, usually the reason of a failure'),
}

/** What clients send to add a location; never served. */
export const NEW_LOCATION: JsonSchema = {
  type: 'object',
  properties: {
    url: { type: 'string' },
    validation_data: {
      type: 'object',
      additionalProperties: false,
      properties: {
        os_hash_algo: { type: 'string', maxLength: 64, enum: ['sha1', 'sha256', 'sha512', 'md5'] },
        os_hash_value: { type: 'string', maxLength: 128 },
      },
      dependencies: { os_hash_value: ['os_hash_algo'], os_hash_algo: ['os_hash_value'] },
    },
  },
  required: ['url'],
}

export function buildSchemas(options: SchemaOptions): Schemas {
  const { custom } = options
  const extras = Object.fromEntries(
    Object.entries(custom.properties).map(([name, schema]) => [name, { ...schema, is_base: false }]),
  )
  const image = {
    name: 'image',
    properties: { ...imageProperties(options), ...extras },
    additionalProperties: { type: 'string' },
    links: [
      { rel: 'self', href: '{self}' },
      { rel: 'enclosure', href: '{file}' },
      { rel: 'describedby', href: '{schema}' },
    ],
    ...(custom.required && custom.required.length > 0 ? { required: custom.required } : {}),
  }
  const member = { name: 'member', properties: memberProperties }
  return {
    image,
    images: {
      name: 'images',
      properties: {
        images: { type: 'array', items: image },
        first: { type: 'string' },
        next: { type: 'string' },
        schema: { type: 'string' },
      },
      links: [
        { rel: 'first', href: '{first}' },
        { rel: 'next', href: '{next}' },
        { rel: 'describedby', href: '{schema}' },
      ],
    },
    member,
    members: {
      name: 'members',
      properties: { members: { type: 'array', items: member }, schema: { type: 'string' } },
      links: [{ rel: 'describedby', href: '{schema}' }],
    },
    task: { name: 'task', properties: { ...taskProperties, ...taskDetails } },
    tasks: {
      name: 'tasks',
      properties: {
        tasks: { type: 'array', items: { name: 'task', properties: taskProperties } },
        schema: { type: 'string' },
      },
      links: [{ rel: 'describedby', href: '{schema}' }],
    },
  }
}
