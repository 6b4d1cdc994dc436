import { spawn } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { freePort, until } from '../product.ts'
import type { Availability } from './keystone.ts'

export interface Nginx {
  readonly url: string
  /** What it serves. */
  readonly root: string
  stop(): Promise<void>
}

/** Debian keeps it where only root's path leads. */
const installed = (): string | undefined =>
  [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin']
    .map((dir) => join(dir, 'nginx'))
    .find((file) => {
      try {
        accessSync(file, constants.X_OK)
        return true
      } catch {
        return false
      }
    })

/** Whether nginx is installed here. */
export const available = (): Availability =>
  installed() === undefined ? { ok: false, reason: 'nginx is not installed' } : { ok: true }

/** A real nginx on a free port of the loopback, which sends 8 MiB a second over each connection. */
export async function startNginx(): Promise<Nginx> {
  const dir = await mkdtemp(join(tmpdir(), 'glimpse-nginx-'))
  const root = join(dir, 'root')
  await mkdir(root)
  const port = await freePort()
  return { ...(await launch(dir, port, `server { listen 127.0.0.1:${port}; root ${root}; limit_rate 8m; }`)), root }
}

/** An nginx on `port` which sends every request to the next of `servers`, `HOST:PORT`, and bodies as they come. */
export async function startRoundRobin(port: number, servers: readonly string[]): Promise<Omit<Nginx, 'root'>> {
  const dir = await mkdtemp(join(tmpdir(), 'glimpse-nginx-'))
  return launch(
    dir,
    port,
    `upstream all { ${servers.map((server) => `server ${server} max_fails=0;`).join(' ')} }
     server {
       listen 127.0.0.1:${port};
       client_max_body_size 0;
       location / {
         proxy_pass http://all;
         proxy_http_version 1.1;
         proxy_set_header Host $http_host;
         proxy_request_buffering off;
         proxy_buffering off;
         proxy_read_timeout 300s;
         proxy_next_upstream off;
       }
     }`,
  )
}

/** Resolves when it answers; `stop` deletes `dir`. */
async function launch(dir: string, port: number, servers: string): Promise<Omit<Nginx, 'root'>> {
  const program = installed()
  if (program === undefined) throw new Error('nginx is not installed')
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((name) => `${name}_temp_path ${dir}/${name};`)
    .join('\n')
  await writeFile(
    join(dir, 'nginx.conf'),
    `daemon off;
     master_process off;
     pid ${dir}/nginx.pid;
     error_log ${dir}/error.log;
     events {}
     http {
       access_log off;
       ${temporary}
       ${servers}
     }`,
  )
  const child = spawn(program, ['-p', dir, '-e', join(dir, 'error.log'), '-c', join(dir, 'nginx.conf')], {
    stdio: 'ignore',
  })
  process.once('exit', () => child.kill('SIGKILL'))
  const url = `http://127.0.0.1:${port}`
  const stop = async () => {
    const exit = new Promise((resolve) => child.once('exit', resolve))
    if (child.exitCode === null && child.signalCode === null && child.kill('SIGKILL')) await exit
    await rm(dir, { recursive: true, force: true })
  }
  try {
    await until('nginx', async () => {
      if (child.exitCode !== null) throw new Error(`nginx ended with ${child.exitCode}`)
      return fetch(url).then(
        () => true,
        () => false,
      )
    })
  } catch (error) {
    await stop()
    throw error
  }
  return { url, stop }
}
