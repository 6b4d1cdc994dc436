import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parse, stringify } from 'yaml'
import type { Standalone } from '../auth/standalone.ts'

interface Cloud {
  readonly auth: {
    readonly auth_url: string
    readonly username: string
    readonly password: string
    readonly project_name: string
  }
}
interface CloudsFile {
  readonly clouds: Readonly<Record<string, Cloud | undefined>>
}

const password = (): string => randomBytes(18).toString('base64url')

const cloud = (authUri: string, username: string, secret: string, project: string) => ({
  auth: {
    auth_url: authUri,
    username,
    password: secret,
    project_name: project,
    user_domain_name: 'Default',
    project_domain_name: 'Default',
  },
  region_name: 'RegionOne',
  identity_api_version: 3,
})

/**
 * On the first start makes the admin (cloud `glimpse`) and a demo user (cloud `demo`), and leaves their passwords in
 * clouds.yaml; later keeps its addresses right. Gives the file's path, or undefined when somebody took it away.
 */
export async function writeClouds(standalone: Standalone, data: string, authUri: string): Promise<string | undefined> {
  const file = join(data, 'clouds.yaml')
  // The file comes first: passwords that were set and not written down would be lost for good.
  const isNew = !existsSync(file)
  if (isNew) {
    const clouds = {
      glimpse: cloud(authUri, 'admin', password(), 'admin'),
      demo: cloud(authUri, 'demo', password(), 'demo'),
    }
    save(file, { clouds })
  }
  const { clouds } = parse(readFileSync(file, 'utf8')) as CloudsFile
  const made = await standalone.bootstrap({
    adminPassword: clouds['glimpse']?.auth.password ?? password(),
    demoPassword: clouds['demo']?.auth.password ?? password(),
  })
  if (isNew && !made) {
    // The users are from before: the passwords just invented are nobody's.
    renameSync(file, `${file}.unused`)
    return undefined
  }
  const moved = Object.fromEntries(
    Object.entries(clouds).map(([name, entry]) => [
      name,
      entry?.auth.auth_url.endsWith('/identity/v3') ? { ...entry, auth: { ...entry.auth, auth_url: authUri } } : entry,
    ]),
  )
  if (JSON.stringify(moved) !== JSON.stringify(clouds)) save(file, { clouds: moved })
  return file
}

function save(file: string, content: CloudsFile): void {
  const half = `${file}.new`
  writeFileSync(half, `# Made by Glimpse: export OS_CLIENT_CONFIG_FILE=${file}\n${stringify(content)}`, { mode: 0o600 })
  renameSync(half, file)
}
