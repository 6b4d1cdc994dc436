import { execFile, execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'

/** A key with its certificate, made by openssl in files of `dir`. */
export interface Signer {
  /** The certificate is in `ID.crt`. */
  readonly id: string
  readonly certificate: string
  /** In base64. */
  sign(data: Buffer, hash: string, options?: readonly string[]): string
}

const openssl = (...args: readonly string[]): Buffer =>
  execFileSync('openssl', args, { stdio: ['ignore', 'pipe', 'pipe'] })

/** What `openssl genpkey` is told for each kind of key. */
const KINDS = {
  rsa: ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048'],
  // A modulus of one bit more than whole bytes: the longest salt is another than for its neighbours.
  'rsa-odd': ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2049'],
  secp384r1: ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:secp384r1'],
  secp521r1: ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:secp521r1'],
  sect409k1: ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:sect409k1'],
  sect409r1: ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:sect409r1'],
  sect571k1: ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:sect571k1'],
  sect571r1: ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:sect571r1'],
} as const
export type KeyKind = keyof typeof KINDS | 'dsa'

/** With `expired`, the certificate ended yesterday. */
export function makeSigner(dir: string, kind: KeyKind, { expired = false } = {}): Signer {
  const id = randomUUID()
  const key = join(dir, `${id}.key`)
  const file = join(dir, `${id}.crt`)
  if (kind === 'dsa') {
    const parameters = join(dir, `${id}.dsa`)
    openssl('dsaparam', '-out', parameters, '2048')
    openssl('gendsa', '-out', key, parameters)
  } else openssl('genpkey', ...KINDS[kind], '-out', key)
  const request = join(dir, `${id}.csr`)
  openssl('req', '-new', '-key', key, '-subj', '/CN=test', '-out', request)
  openssl('x509', '-req', '-in', request, '-key', key, '-days', expired ? '-1' : '2', '-out', file)
  return {
    id,
    certificate: openssl('x509', '-in', file).toString(),
    sign: (data, hash, options = kind.startsWith('rsa') ? pss('max') : []) => {
      const input = join(dir, `${randomUUID()}.data`)
      writeFileSync(input, data)
      return openssl('dgst', `-${hash}`, '-sign', key, ...options, input).toString('base64')
    },
  }
}

export const pss = (salt: string): readonly string[] =>
  ['rsa_padding_mode:pss', `rsa_pss_saltlen:${salt}`].flatMap((option) => ['-sigopt', option])

/** An authority (`ca.pem`), and for each name a certificate of it (`NAME.pem`) with its key (`NAME.key`), in `dir`. */
export async function makeCertificates(dir: string, names: readonly string[]): Promise<void> {
  const run = (...args: readonly string[]) => promisify(execFile)('openssl', args, { cwd: dir })
  const request = ['req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
  await run(...request, '-x509', '-keyout', 'ca.key', '-out', 'ca.pem', '-subj', '/CN=Test authority', '-days', '2')
  for (const name of names) {
    const kind = isIP(name) === 0 ? 'DNS' : 'IP'
    writeFileSync(join(dir, `${name}.ext`), `subjectAltName=${kind}:${name}\n`)
    await run(...request, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${name}`)
    const signing = ['x509', '-req', '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2']
    await run(...signing, '-in', `${name}.csr`, '-extfile', `${name}.ext`, '-out', `${name}.pem`)
  }
}
