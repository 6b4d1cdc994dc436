import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ServiceError } from '../domain/errors.ts'
import { isKeyId, readCertificate } from './certificate.ts'
import type { KeyManager } from './key-manager.ts'

const EXTENSIONS = ['.crt', '.pem', '.der']

/** Certificates in files that are named by their id, `UUID.crt`, `.pem` or `.der`; everybody may use all of them. */
export const certificateFolder = (folder: string): Pick<KeyManager, 'certificate'> => ({
  async certificate(id) {
    for (const extension of isKeyId(id) ? EXTENSIONS : []) {
      const data = await readIfThere(join(folder, `${id}${extension}`))
      if (data !== undefined) return readCertificate(data)
    }
    throw new ServiceError('not-found', `There is no certificate ${id}`)
  },
})

async function readIfThere(file: string): Promise<Buffer | undefined> {
  try {
    return await readFile(file)
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new ServiceError('unavailable', 'A certificate cannot be read', { cause, detail: { file } })
  }
}
