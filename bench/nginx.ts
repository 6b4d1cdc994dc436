import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { freePort, processTree, until } from '../test/support/product.ts'
import type { Side } from './sides.ts'

export async function startNginx(dir: string): Promise<Pick<Side, 'url' | 'processes' | 'stop'>> {
  const port = await freePort()
  const config = join(dir, 'nginx.conf')
  await writeFile(
    config,
    // As root, its workers would be somebody who cannot read the folder.
    `${process.getuid?.() === 0 ? 'user root;' : ''}
pid ${dir}/nginx.pid;
error_log ${dir}/nginx.log;
worker_processes 2;
daemon off;
events {}
http {
  access_log off;
  sendfile on;
  client_body_temp_path ${dir}/nginx;
  server { listen 127.0.0.1:${port}; root ${dir}/web; }
}
`,
  )
  const nginx = spawn('/usr/sbin/nginx', ['-p', dir, '-c', config], { stdio: ['ignore', 'inherit', 'inherit'] })
  process.once('exit', () => nginx.kill())
  const url = `http://127.0.0.1:${port}`
  await until('nginx', async () => (await fetch(url).catch(() => undefined)) !== undefined)
  const stop = async (): Promise<void> => {
    nginx.kill()
    await once(nginx, 'exit')
  }
  return { url, processes: () => processTree(Number(nginx.pid)), stop }
}
