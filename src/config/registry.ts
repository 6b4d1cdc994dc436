// Options of glance-registry, and of those who use it.
import { bool, integer, list, type OptionGroup, port, text } from './options.ts'

/** Value of `data_api` that puts the registry in the place of the database. */
export const REGISTRY_API = 'glance.db.registry.api'

/** For glance-api: how to reach the registry. */
export const registryClient = {
  data_api: text({
    default: 'glance.db.sqlalchemy.api',
    help: `Where the database is: \`${REGISTRY_API}\` means behind a registry, and then \`[database] connection\` is not used. Anything else means here.`,
  }),
  registry_host: text({ default: '0.0.0.0', help: 'Host of the registry.' }),
  registry_port: port({ default: 9191, help: 'TCP port of the registry.' }),
  registry_client_protocol: text({
    default: 'http',
    pattern: /^https?$/i,
    expects: 'http or https',
    help: 'Whether the registry is reached over TLS.',
  }),
  registry_client_ca_file: text({
    help: "File of the certificates by which the registry's server is known. When not set, those of the system.",
  }),
  registry_client_cert_file: text({ help: 'File of the certificate that is shown to the registry.' }),
  registry_client_key_file: text({ help: 'File of the key of this certificate.' }),
  registry_client_insecure: bool({ default: false, help: "Do not check the registry's certificate." }),
  registry_client_timeout: integer({
    default: 600,
    min: 0,
    help: 'Seconds to wait for an answer of the registry; 0 waits for ever.',
  }),
  send_identity_headers: bool({
    default: false,
    help: 'Tell the registry in headers that this is a service, for a registry that believes so (`flavor = trusted-auth`).',
  }),
  use_user_token: bool({
    default: true,
    help: 'When false, the service logs in for the registry as `admin_user` below. When true, as `[keystone_authtoken]` says: tokens of users are not passed on, because the registry serves nodes, not users.',
  }),
  admin_user: text({ secret: true, help: 'User name with which the service logs in for the registry.' }),
  admin_password: text({ secret: true, help: 'The password of this user.' }),
  admin_tenant_name: text({ secret: true, help: 'The project of this user, who is in the domain `default`.' }),
  auth_url: text({ help: 'URL of the Keystone where this user is known.' }),
} as const satisfies OptionGroup

/** For glance-registry, in `[DEFAULT]` of its own file. */
export const registryServer = {
  bind_port: port({ default: 9191, help: 'TCP port to listen on.' }),
  cert_file: text({ help: 'File of the certificate to serve with, over TLS. When not set, without TLS.' }),
  key_file: text({ help: 'File of the key of this certificate.' }),
  ca_file: text({
    help: 'File of the authorities of which clients must have a certificate. When not set, they need none.',
  }),
  enable_v1_registry: bool({ default: true, help: 'Answer the clients of the registry of API v1.' }),
  enable_v2_registry: bool({ default: true, help: 'Answer the remote procedure calls of Glance until Ussuri.' }),
  allowed_rpc_exception_modules: list({
    default: ['glance.common.exception', 'builtins', 'exceptions'],
    help: 'Modules whose exceptions such a call tells by name; others go as text in an RPCError.',
  }),
} as const satisfies OptionGroup

/** Of `[glimpse]`, for both. */
export const registryShared = {
  registry_secret: text({
    secret: true,
    help: 'What only the registry and its nodes know. With it, nodes need neither a token nor a role. Use TLS, or a network of your own.',
  }),
} as const satisfies OptionGroup
